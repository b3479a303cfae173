"""What a served round took, from the server's own clock; what devices report is bounded by that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sflam.learn.steps import Steps
from sflam.link.contract import Contract
from sflam.link.device_report import DeviceReport
from sflam.records.served_round import ServedRound, TrunkPass
from sflam.serve.round_stats import Reading, RoundStats


@dataclass(frozen=True)
class Away:
    """The seconds of a device between answers and its next requests, apart."""

    compute_s: float
    receive_s: float
    down_s: float
    fetch_s: float


def away_of(reading: Reading, steps: int) -> Away:
    """Return where a device's seconds went, which made ``steps`` in the round: at most what the server measured.

    Its times are of the steps it made in one life; those it made before a loss are taken to be like them.
    """
    report, away = reading.report or DeviceReport(), reading.away_s
    if report.steps == 0:
        return Away(away, 0.0, 0.0, 0.0)
    more = max(1.0, steps / report.steps)
    fetch = min(report.fetch_s, away)
    compute = min(report.compute_s * more, away - fetch)
    down = away - fetch - compute
    return Away(compute, min(report.receive_s * more, down), down, fetch)


def measured_round(
    done: Steps,
    stats: RoundStats,
    contracts: Mapping[int, Contract],
    cuts: Sequence[int],
    *,
    openings: int,
    server_s: float,
    exchanges: Mapping[int, int],
    lost: Mapping[int, int],
) -> ServedRound:
    """Return what a round took.

    Args:
        done: what was trained, by the devices that count.
        stats: of the round.
        contracts: of all devices.
        cuts: of all devices.
        openings: how often the round was opened.
        server_s: in which the server computed.
        exchanges: device -> its exchanges in the round.
        lost: devices left out -> the steps they had made.
    """
    readings, devices = stats.readings(), sorted(done.samples)
    each = [readings.get(device, Reading()) for device in devices]
    own = [contracts[device] for device in devices]
    counts = [exchanges.get(device, 0) for device in devices]
    away = [away_of(r, n // c.legs) for r, n, c in zip(each, counts, own, strict=True)]
    reports = [reading.report or DeviceReport() for reading in each]
    heat, slow, left, free = (
        tuple(getattr(report, name) for report in reports)
        for name in ("temperature", "throttled", "battery", "memory_left")
    )
    return ServedRound(
        seconds=stats.seconds,
        openings=openings,
        server_s=server_s,
        finish=tuple(reading.finish_s for reading in each),
        upload_s=tuple(reading.upload_s for reading in each),
        link_s=tuple(reading.link_s for reading in each),
        away_s=tuple(reading.away_s for reading in each),
        bytes_up=tuple(reading.bytes_up for reading in each),
        bytes_down=tuple(reading.bytes_down for reading in each),
        payload_up=tuple(done.payload_up.get(device, 0) for device in devices),
        payload_down=tuple(done.payload_down.get(device, 0) for device in devices),
        cuts=tuple(cuts[device] for device in devices),
        bits_up=tuple(contract.bits for contract in own),
        bits_down=tuple(contract.bits_down for contract in own),
        left_out=tuple(lost),
        left_steps=tuple(lost.values()),
        compute_s=tuple(one.compute_s for one in away),
        up_s=tuple(max(0.0, reading.upload_s - reading.hand_s) for reading in each),
        wait_s=tuple(reading.wait_s for reading in each),
        down_s=tuple(one.down_s for one in away),
        adapter_s=tuple(one.fetch_s + r.hand_s for one, r in zip(away, each, strict=True)),
        receive_s=tuple(one.receive_s for one in away),
        bytes_handed=tuple(reading.bytes_handed for reading in each),
        bytes_fetched=tuple(reading.bytes_fetched for reading in each),
        exchanges=tuple(counts),
        memory=tuple(report.memory for report in reports),
        memory_left=free if any(value is not None for value in free) else (),
        temperature=heat if any(value is not None for value in heat) else (),
        throttled=slow if any(value is not None for value in slow) else (),
        battery=left if any(value is not None for value in left) else (),
    )


def passes_of(made: Sequence[tuple[int, ...]], planned: Mapping[int, Sequence[int]]) -> tuple[TrunkPass, ...]:
    """Return the passes of a trunk that serves all; none where all came as ``planned``, device -> its steps.

    Args:
        made: the step of each pass, and the devices in it.
        planned: device -> its steps.
    """
    every: dict[int, list[int]] = {}
    for device in sorted(planned):
        for step in planned[device]:
            every.setdefault(step, []).append(device)
    if list(made) == [(step, *every[step]) for step in sorted(every)]:
        return ()
    return tuple(TrunkPass(step=step, devices=tuple(devices)) for step, *devices in made)
