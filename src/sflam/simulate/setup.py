"""From an assembled job to a simulated fleet, or one sentence why it cannot be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.allocate.registry import method_of
from sflam.config import Job
from sflam.data.dataset import Dataset
from sflam.errors import ConfigError
from sflam.learn.fleet import Fleet
from sflam.learn.methods import METHODS
from sflam.network import trace
from sflam.network.scenario import build
from sflam.plan import ALL_LOCAL
from sflam.planner import edge as planning_edge
from sflam.planner.cell import chooses_cut, with_devices
from sflam.simulate.cell_planner import CellPlanner
from sflam.simulate.edge_planner import EdgePlanner
from sflam.simulate.feedback import feedback_of
from sflam.simulate.fleet import Simulated
from sflam.simulate.work import batches_of, work_of


def simulated(
    job: Job, inner: Fleet, parts: Sequence[NDArray[np.int64]], train: Dataset, numbers: int
) -> Simulated:
    """Return ``inner`` on a virtual clock over the job's network.

    Args:
        job: what was asked for.
        inner: trains.
        parts: the samples of each device, int64 [n_k].
        train: the training samples; the lengths of texts are what they cost.
        numbers: trained numbers of the whole model, which devices that hold it send.

    Raises:
        ConfigError, ModelError: what cannot be simulated.
    """
    job = with_devices(job)
    expect_possible(job)
    work, batches = work_of(job, train, numbers), batches_of(job, parts)
    servers = np.array(job.fleet.servers or [0] * len(parts))
    cuts = np.where(servers == ALL_LOCAL, work.blocks, job.fleet.cuts or job.model.cut)
    if planning_edge.wanted(job):
        edge = EdgePlanner(job, work, cuts, servers, batches, numbers=numbers, moves=moves(job))
        edge.expect_possible(build(job.network, job.seed))  # before anything is written
        return Simulated(inner, edge, job)
    once, feedback = METHODS[job.learn.method].at_home, feedback_of(job, inner)
    return Simulated(inner, CellPlanner(job, work, cuts, servers, batches, once=once, feedback=feedback), job)


def notes(job: Job) -> tuple[str, ...]:
    """Return what a user should know of a simulated run before it starts."""
    said = []
    if moves(job):
        what = "who trains how many blocks at which server" if planning_edge.wanted(job) else "the cut"
        said.append(
            f"every plan chooses {what} anew; the memory above is that of model.cut = {job.model.cut}, "
            "the result tells that of the deepest cut in use"
        )
    if job.network.calibrate:
        said.append(
            "network.calibrate: steps take as long as on this machine, so virtual time depends on how fast and how "
            "busy it is"
        )
    blind = not job.plan.sensitivity and not job.plan.measure_every
    if "bits" in job.plan.optimize and METHODS[job.learn.method].quantized and blind:
        said.append(
            "plan.sensitivity is 0, so quantization noise costs nothing and the fewest bits win; measure chi with "
            "plan.measure_every = 5"
        )
    return tuple(said)


def moves(job: Job) -> bool:
    """Return whether plans decide on cuts or servers as the run goes."""
    if planning_edge.wanted(job):
        return not (job.fleet.cuts or job.fleet.servers)
    return chooses_cut(job, method_of(job.plan))


def expect_possible(job: Job) -> None:
    """Raise ConfigError where a run cannot be simulated."""
    network, problems = build(job.network, job.seed), []
    if len(network) != job.fleet.devices:
        problems.append(
            f"the network has {len(network)} devices, but fleet.devices is {job.fleet.devices}; make them equal"
        )
    if job.network.trace and (rows := len(trace.read(job.network.trace).times)) < job.learn.rounds:
        problems.append(
            f"trace {job.network.trace} has {rows} rounds, but learn.rounds is {job.learn.rounds}; give a longer "
            "trace, or fewer rounds"
        )
    if job.learn.method in ("central", "local"):
        problems.append(f'learn.method = "{job.learn.method}" uses no network; train it without simulating')
    if job.model.labels == "device":
        problems += [
            f'{key} is set, but with model.labels = "device" nothing is measured on the way; leave it out'
            for key, _ in _wished(job, "plan.measure_every", "network.calibrate")
        ]
    if job.model.trainable == "full" and job.learn.method != "fedavg":
        problems.append('model.trainable is "full": costs are those of adapters; simulate with "lora"')
    several = planning_edge.wanted(job)
    problems += list(_for_several(job) if several else _for_one(job))
    if moves(job):
        problems += list(_for_moving(job))
    if job.fleet.bits_up or job.fleet.bits_down:
        problems.append(
            "fleet.bits_up and fleet.bits_down are what a plan gives; leave them out of a simulation"
        )
    if job.network.calibrate and METHODS[job.learn.method].at_home:
        problems.append(
            f'network.calibrate measures both halves of a cut model, but learn.method = "{job.learn.method}" cuts '
            "none; set it to false"
        )
    if "bits" in job.plan.optimize and job.learn.cache == "server":
        problems.append('learn.cache = "server" keeps what came with other bits; choose bits, or the cache')
    if problems:
        raise ConfigError(problems)


def _for_several(job: Job) -> Iterator[str]:
    """Yield what a run among several servers has no place for."""
    name = job.learn.method
    planning_edge.method_of(job)
    if not METHODS[name].split or METHODS[name].relay:
        yield (
            f'learn.method = "{name}" has no trunks at several servers; use sflam, sfl-v1 or sfl-v2, or '
            "network.servers = 1"
        )
    unknown = ("plan.budget", "plan.measure_every", "plan.late", "network.battery_j", "network.calibrate")
    for key, value in _wished(job, *unknown):
        yield f"{key} is {value}, but plans for several servers do not know it; leave it out"


def _for_one(job: Job) -> Iterator[str]:
    """Yield what a run with one server has no place for."""
    others = sorted({server for server in job.fleet.servers if server != 0})
    if others:
        yield (
            f"fleet.servers holds {others[0]}, but the network has one server; simulate several with "
            'network.scenario = "square" and network.servers'
        )


def _for_moving(job: Job) -> Iterator[str]:
    """Yield what does not go with plans that choose cuts."""
    several = planning_edge.wanted(job)
    if not several and (METHODS[job.learn.method].relay or not METHODS[job.learn.method].split):
        yield (
            f'plan.optimize chooses the cut, but learn.method = "{job.learn.method}" has none of its own for every '
            "device; leave it out"
        )
    if job.fleet.cuts:
        yield "fleet.cuts is set, but plan.optimize chooses the cut; leave one of them out"
    for key, value, plain in (
        ("learn.state", job.learn.state, "reset"),
        ("learn.cache", job.learn.cache, "off"),
    ):
        if value != plain:
            yield f'{key} is "{value}", but cuts change from plan to plan; set it to "{plain}"'
    still = () if several else ("plan.budget", "plan.measure_every", "network.calibrate")
    for key, value in _wished(job, *still):
        yield f"{key} is {value}, which is about a cut that stays; leave it out, or do not choose the cut"


def _wished(job: Job, *keys: str) -> Iterator[tuple[str, Any]]:
    """Yield those of some settings, ``section.name``, that are not as they are by themselves, with their values."""
    plain = Job()
    for key in keys:
        section, _, name = key.partition(".")
        value = getattr(getattr(job, section), name)
        if value != getattr(getattr(plain, section), name):
            yield key, value
