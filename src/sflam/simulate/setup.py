"""From an assembled job to a simulated fleet, or one sentence why it cannot be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sflam.config import Job
from sflam.data.dataset import Dataset
from sflam.errors import ConfigError
from sflam.learn.fleet import Fleet
from sflam.learn.methods import METHODS
from sflam.network import trace
from sflam.network.scenario import build
from sflam.plan import ALL_LOCAL
from sflam.planner import edge as planning_edge
from sflam.planner.cell import moves, with_devices
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


def expect_possible(job: Job) -> None:
    """Raise ConfigError where the network is not that of the run."""
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
    if problems:
        raise ConfigError(problems)
