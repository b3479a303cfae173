"""A served run's rates as a network that jobs name, and back: ``sflam profile --from RUN`` and what reads its file.

Computing is counted in FLOP, by the model of the cost of training, so that it is right at other cuts and batches, too:

    device   clock x FLOP per cycle = FLOP of a sample / its measured seconds; what counts no FLOP is latency
    server   clock x FLOP per cycle = FLOP of a step of all devices / the mean wait for its answers
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sflam.config import Job
from sflam.cost.traffic import token_bits
from sflam.errors import DataError
from sflam.network.channel import rate
from sflam.network.scenario import build
from sflam.network.settings import DeviceEntry, NetworkSettings
from sflam.planner.cell import device_jobs, measured
from sflam.planner.served import MOST_RATE, Rates
from sflam.planner.served_rates import middle, rates_of
from sflam.records import history
from sflam.records.history import RoundRecord
from sflam.records.run_folder import RunFolder
from sflam.workload import Workload

CLOCK_GHZ = 1.0
"""That stands for the clocks of machines whose FLOP/s were measured."""
ROUNDED = 6
"""Significant figures of a measured number."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """The FLOP of a mini-batch of one device, and its exchanges."""

    device: float
    server: float
    batch: int
    exchanges: int


def works_of(workload: Workload, own: Sequence[Workload], cuts: Sequence[int]) -> list[Work]:
    """Return the work of each device, [K]."""
    each = own or (workload,) * len(cuts)
    return [
        Work(
            device=one.device_forward[cut] + one.device_backward[cut],
            server=one.server_forward[cut] + one.server_backward[cut],
            batch=one.batch,
            exchanges=one.exchanges,
        )
        for one, cut in zip(each, cuts, strict=True)
    ]


def calibrated(
    job: Job, records: Sequence[RoundRecord], workload: Workload, own: Sequence[Workload], cuts: Sequence[int]
) -> tuple[Job, tuple[str, ...]]:
    """Return the job of a served run over a network as that run measured it, medians of its rounds, and notes.

    The first round is left out where there are others: caches, connections and clocks warm up in it.

    Args:
        job: of the run.
        records: its rounds.
        workload: what a mini-batch costs.
        own: what it costs each device, where ranks or tuned blocks differ; else empty.
        cuts: of all devices.

    Raises:
        DataError: no round has what is needed, or a device was in none.
    """
    shared = job.network.access == "airtime"
    each = [found for record in records if (found := rates_of(record, shared=shared))]
    found = middle(each[1:] or each)
    if missing := sorted(set(range(job.fleet.devices)) - found.keys()):
        devices = ", ".join(map(str, missing[:5]))
        raise DataError(
            f"the run measured nothing of devices {devices}: it has no served round with them, or an older sflam "
            "served it; serve a few rounds more"
        )
    works = works_of(workload, own, cuts)
    tables, notes = [], []
    for device, work in enumerate(works):
        rates, per_sample = found[device], work.device / work.batch
        latency = rates.exchange_s
        speed: float | None = None
        if per_sample > 0 and rates.compute_s > 0:
            speed = _figures(per_sample / rates.compute_s / (CLOCK_GHZ * 1e9))
        elif rates.compute_s > 0:
            latency += rates.compute_s * work.batch / work.exchanges
            notes.append(f"device {device}: its half counts no FLOP, so what it computes is in latency_ms")
        tables.append(
            DeviceEntry(
                name=f"device-{device}",
                rate_mbps=_figures(rates.up / 1e6),
                clock_ghz=CLOCK_GHZ,
                downlink_mbps=_figures(rates.down / 1e6),
                latency_ms=_figures(latency * 1e3),
                flops_per_cycle=speed,
            )
        )
    count = job.fleet.asked or job.fleet.devices
    step = count * float(np.mean([work.server for work in works]))
    wait = float(np.mean([found[k].wait_s * works[k].exchanges for k in range(len(works))]))
    network = NetworkSettings(
        access=job.network.access,
        device=tuple(tables),
        bandwidth_mhz=max(20.0, _figures(max(rates.up for rates in found.values()) / 5e6)),
        fading="none",
        server_clock_ghz=CLOCK_GHZ,
        server_flops_per_cycle=_figures(step / wait / (CLOCK_GHZ * 1e9)) if step > 0 and wait > 0 else 0.0,
    )
    return replace(job, network=network), tuple(notes)


def rates_in(job: Job, workload: Workload, own: Sequence[Workload], cuts: Sequence[int]) -> dict[int, Rates]:
    """Return device -> what the job's network has measured of it; nothing unless it has so of all devices."""
    tables = job.network.device
    counts_all = sum(table.count for table in tables) == len(cuts)
    if not counts_all or not all(table.rate_mbps and table.latency_ms is not None for table in tables):
        return {}
    network = build(job.network, job.seed)
    band = float(network.bandwidth[0])
    up = rate(np.full(len(network), band), network.max_power, network.gain[0], network.noise)
    speed = network.max_clock * network.flops_per_cycle
    served = float(network.server_clock[0] * network.server_flops_per_cycle[0])
    works = works_of(workload, own, cuts)
    step = (job.fleet.asked or len(works)) * float(np.mean([work.server for work in works]))
    return {
        device: Rates(
            up=float(min(up[device], MOST_RATE)),
            down=float(min(network.down_rate[device], MOST_RATE)),
            compute_s=work.device / work.batch / float(speed[device]),
            exchange_s=float(network.exchange_s[device]),
            wait_s=step / served / work.exchanges,
        )
        for device, work in enumerate(works)
    }


def _figures(value: float) -> float:
    return float(f"{value:.{ROUNDED}g}")


def calibrate_run(folder: Path) -> tuple[Job, tuple[str, ...]]:
    """Return the job of the served run in ``folder`` over the network that it measured, and notes.

    Raises:
        RunError: it holds no run.
        DataError: its rounds were not served, or not measured.
        ModelError: a model whose cost is not known.
    """
    run = RunFolder(folder)
    job, records = run.read_job(), history.read(run.history)[1]
    job = _with_tokens(job, records)
    own = tuple(measured(one) for one in device_jobs(job))
    cuts = next((_cuts(record, job) for record in records if record.measured), None)
    return calibrated(job, records, measured(job), own, cuts or [one.cut for one in job.placements])


def _cuts(record: RoundRecord, job: Job) -> list[int]:
    """Return the cut of every device: in a round, or as the job has it."""
    assert record.measured is not None
    served = dict(zip(record.participants, record.measured.cuts, strict=True))
    return [served.get(placement.device, placement.cut) for placement in job.placements]


def _with_tokens(job: Job, records: Sequence[RoundRecord]) -> Job:
    """Return a job of texts with the mean tokens of what was sent and what was dropped, unless it sets them."""
    workload = measured(job)
    if not workload.texts or job.plan.tokens:
        return job
    bits, rows = 0.0, 0.0
    for record in records:
        if found := record.measured:
            for place, samples in enumerate(record.device_samples):
                bits += found.payload_up[place] / token_bits(workload, found.bits_up[place])
                rows += samples * workload.exchanges
    if not rows:
        return job
    whole = 1 + (bits / rows - 1) / (1 - job.privacy.drop_tokens)
    return replace(job, plan=replace(job.plan, tokens=max(1, round(whole))))
