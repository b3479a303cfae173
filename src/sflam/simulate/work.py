"""What the devices of a run compute and send, by the cost model: with a cut, and with the whole model at home."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sflam.config import Job
from sflam.data.batches import rows_of_round
from sflam.data.dataset import Dataset
from sflam.errors import ModelError
from sflam.learn.methods import method_of
from sflam.network.network import Floats
from sflam.plan import ALL_LOCAL
from sflam.planner.cell import device_jobs, measured
from sflam.planner.edge import chooses_tuned
from sflam.records.history import RoundRecord
from sflam.sizes import IDENTITY
from sflam.workload import Workload


def work_of(job: Job, train: Dataset, numbers: int, rows: int = 0) -> Workload:
    """Return what a mini-batch costs in a run.

    Args:
        job: what was asked for.
        train: the training samples; the lengths of texts are what they cost.
        numbers: trained numbers of the whole model, which devices that hold it send.
        rows: most rows of a device's step, which it needs memory for; 0 for a mini-batch.

    Raises:
        ModelError: a model that cannot be measured.
    """
    method = method_of(job)
    quant = replace(job.quant, scheme=method.scheme(job.quant), bits_adapters=method.bits_adapters(job.quant))
    tokens = 0 if train.lengths is None else max(1, round(float(train.lengths.mean())))
    workload = measured(replace(job, quant=quant), tokens)
    if rows not in (0, job.learn.batch):
        largest = measured(replace(job, learn=replace(job.learn, batch=rows)), tokens)
        workload = replace(workload, device_memory=largest.device_memory)
    own_half = job.learn.personal == "device-half"
    if workload.exchanges > 1 and not (
        method.whole or own_half
    ):  # of the head, what is trained is on the device
        trained = replace(job, learn=replace(job.learn, device_half="trained"))
        whole = measured(trained, tokens).adapter_values
        head = numbers - whole[-1] + whole[0]
        values = tuple(head + (own - whole[0]) * (not workload.frozen) for own in whole)
        workload = replace(workload, adapter_values=values)
    return at_home(workload, numbers) if method.whole else workload


def work_of_each(job: Job, train: Dataset, numbers: int, rows: int = 0) -> tuple[Workload, ...]:
    """Return what a mini-batch costs each device, where each has a LoRA rank or tuned blocks of its own; else nothing.

    Args:
        job, train, numbers, rows: as in :func:`work_of`.
    """
    each = device_jobs(job)
    found = {
        mine.model: work_of(mine, train, numbers - _adapters(job) + _adapters(mine), rows)
        for mine in {one.model: one for one in each}.values()
    }
    return tuple(found[mine.model] for mine in each)


def works_at(job: Job, train: Dataset, numbers: int, rows: int = 0) -> tuple[Workload, ...]:
    """Return what a mini-batch costs with 1, 2, ... Y first blocks tuned, where devices may tune other numbers of them.

    Args:
        job, train, numbers, rows: as in :func:`work_of`.
    """
    if not (chooses_tuned(job) or job.fleet.tuned):
        return ()
    depth = measured(job).blocks
    each = [replace(job, model=replace(job.model, tuned=tau)) for tau in range(1, depth + 1)]
    return tuple(work_of(own, train, numbers - _adapters(job) + _adapters(own), rows) for own in each)


def _adapters(job: Job) -> int:
    """Return the numbers of all adapters of a job's model."""
    whole = measured(replace(job, learn=replace(job.learn, device_half="trained", personal="none")))
    return whole.adapter_values[-1] - whole.adapter_values[0]


def batches_of(job: Job, parts: Sequence[NDArray[np.int64]]) -> Floats:
    """Return the mini-batches [K] of each device's round; a ragged one is a fraction."""
    learn = job.learn
    rows = [rows_of_round(len(part), learn.batch, learn.local_steps, learn.local_epochs) for part in parts]
    found: Floats = np.array(rows) / learn.batch
    return found


def device_flop(
    job: Job,
    parts: Sequence[NDArray[np.int64]],
    train: Dataset,
    records: Iterable[RoundRecord],
) -> float | None:
    """Return the FLOP a device computes in a run, forward and backward: the mean over all devices of the fleet.

    Args:
        job: what was asked for.
        parts: the samples of each device, int64 [n_k].
        train: the training samples.
        records: the rounds; a charge holds their cuts and servers.

    Returns:
        None where devices compute nothing (``central``), and for a model that cannot be measured.
    """
    method = method_of(job)
    if not (method.split or method.whole):
        return None
    try:
        work = work_of(job, train, 1)
    except ModelError:
        return None
    own, at_tuned = work_of_each(job, train, 1) or (work,) * len(parts), works_at(job, train, 1)
    cuts = np.array([placement.cut for placement in job.placements])
    servers = np.array([placement.server for placement in job.placements])
    done = np.zeros(len(parts))
    batches = batches_of(job, parts)
    drawn = job.sampling != "local"
    for record in records:
        who, charge = list(record.participants), record.charge
        at = np.array(charge.cuts) if charge else cuts[who]
        alone = np.array(charge.servers if charge and charge.servers else servers[who]) == ALL_LOCAL
        tuned = charge.tuned if charge and charge.tuned else (0,) * len(who)
        works = [
            at_tuned[tau - 1] if tau > 0 else own[device] for device, tau in zip(who, tuned, strict=True)
        ]
        step = [
            one.device_forward[y] + one.device_backward[y] for one, y in zip(works, at.tolist(), strict=True)
        ]
        rest = [
            one.server_forward[y] + one.server_backward[y] for one, y in zip(works, at.tolist(), strict=True)
        ]
        rows = np.array(record.device_samples) / job.learn.batch if drawn else batches[who]
        done[who] += (np.array(step) + np.array(rest) * alone) * rows
    return float(done.mean())


def at_home(workload: Workload, numbers: int) -> Workload:
    """Return what a mini-batch costs where the device does it all, and sends ``numbers`` floats once a round."""
    every = workload.blocks + 1
    forward = workload.device_forward[0] + workload.server_forward[0]
    backward = workload.device_backward[0] + workload.server_backward[0]
    return replace(
        workload,
        batch=1,
        tokens=1,
        hidden=numbers * workload.adapter_bodies * workload.adapter_width // 32,
        exchanges=1,
        scheme=IDENTITY,
        down=True,
        frozen=False,
        texts=False,
        device_forward=(forward,) * every,
        device_backward=(backward,) * every,
        server_forward=(0.0,) * every,
        server_backward=(0.0,) * every,
        adapter_values=(0,) * every,
        head_forward=0.0,
        head_backward=0.0,
        device_memory=(workload.whole_memory,) * every,
    )
