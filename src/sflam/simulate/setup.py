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
from sflam.planning import with_devices
from sflam.simulate.feedback import feedback_of
from sflam.simulate.fleet import Simulated
from sflam.simulate.planner import Planner
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
    cuts = np.array(job.fleet.cuts or [job.model.cut] * len(parts))
    once = METHODS[job.learn.method].at_home
    planner = Planner(
        job,
        work_of(job, train, numbers),
        cuts,
        batches_of(job, parts),
        once=once,
        feedback=feedback_of(job, inner),
    )
    return Simulated(inner, planner, job)


def notes(job: Job) -> tuple[str, ...]:
    """Return what a user should know of a simulated run before it starts."""
    said = []
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
    """Raise ConfigError where a run cannot be simulated."""
    network, problems = build(job.network, job.seed), []
    if len(network) != job.fleet.devices:
        problems.append(
            f"the network has {len(network)} devices, but fleet.devices is {job.fleet.devices}; make them equal"
        )
    if len(network.bandwidth) > 1:
        problems.append(f"the network has {len(network.bandwidth)} servers; simulate one server at a time")
    if job.network.trace and (rows := len(trace.read(job.network.trace).times)) < job.learn.rounds:
        problems.append(
            f"trace {job.network.trace} has {rows} rounds, but learn.rounds is {job.learn.rounds}; give a longer "
            "trace, or fewer rounds"
        )
    if job.learn.method in ("central", "local"):
        problems.append(f'learn.method = "{job.learn.method}" uses no network; train it without simulating')
    if job.model.labels == "device":
        problems.append('model.labels is "device": a plan counts one exchange a step; simulate with "server"')
    if job.model.trainable == "full" and job.learn.method != "fedavg":
        problems.append('model.trainable is "full": costs are those of adapters; simulate with "lora"')
    if "cut" in job.plan.optimize or job.plan.method == "cut":
        problems.append(
            "plan.optimize chooses the cut, which stays fixed in a run; choose it with sflam plan, then set model.cut"
        )
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
