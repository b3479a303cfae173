"""From an assembled job to a simulated fleet, or one sentence why it cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sflam.config import Job
from sflam.data.dataset import Dataset
from sflam.errors import ConfigError
from sflam.learn.fleet import Fleet
from sflam.learn.methods import METHODS
from sflam.network import trace
from sflam.network.scenario import build
from sflam.network.settings import COUNTS
from sflam.payload import IDENTITY
from sflam.planning import measured
from sflam.simulate.feedback import feedback_of
from sflam.simulate.fleet import Simulated
from sflam.simulate.planner import Planner
from sflam.workload import Workload


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
    job = _with_devices(job)
    expect_possible(job)
    method = METHODS[job.learn.method]
    quant = job.quant if method.quantized else replace(job.quant, scheme=IDENTITY)
    tokens = 0 if train.lengths is None else max(1, round(float(train.lengths.mean())))
    workload = measured(replace(job, quant=quant), tokens)
    if method.at_home:
        workload = at_home(workload, numbers)
    cuts = np.array(job.fleet.cuts or [job.model.cut] * len(parts))
    learn = job.learn
    batches = [rows_of(len(part), learn.batch, learn.local_steps, learn.local_epochs) for part in parts]
    planner = Planner(
        job,
        workload,
        cuts,
        np.array(batches) / learn.batch,
        once=method.at_home,
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
    if job.model.trainable == "full":
        problems.append('model.trainable is "full": costs are those of adapters; simulate with "lora"')
    if "cut" in job.plan.optimize or job.plan.method == "cut":
        problems.append(
            "plan.optimize chooses the cut, which stays fixed in a run; choose it with sflam plan, then set model.cut"
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


def rows_of(samples: int, batch: int, steps: int, epochs: int) -> int:
    """Return the rows a device trains on in a round, as ``sflam.data.batches`` makes its mini-batches."""
    if not steps:
        return samples * epochs
    full, rest = divmod(samples, batch)
    sizes = [batch] * full + ([rest] if rest else [])
    return sum(sizes[step % len(sizes)] for step in range(steps))


def at_home(workload: Workload, numbers: int) -> Workload:
    """Return what a mini-batch costs where the device does it all, and sends ``numbers`` floats once a round."""
    every = workload.blocks + 1
    forward = workload.device_forward[0] + workload.server_forward[0]
    backward = workload.device_backward[0] + workload.server_backward[0]
    return replace(
        workload,
        batch=1,
        tokens=1,
        hidden=numbers,
        scheme=IDENTITY,
        down=True,
        device_forward=(forward,) * every,
        device_backward=(backward,) * every,
        server_forward=(0.0,) * every,
        server_backward=(0.0,) * every,
        adapter_values=(0,) * every,
        device_memory=(workload.device_memory[-1],) * every,
    )


def _with_devices(job: Job) -> Job:
    """Return the job with a network of as many devices as the fleet has, where it does not say how many."""
    network = job.network
    said = network.device or network.profiles or network.trace or network.devices != COUNTS["devices"]
    return job if said else replace(job, network=replace(network, devices=job.fleet.devices))
