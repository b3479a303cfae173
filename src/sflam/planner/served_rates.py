"""From what a served round took to the rates of its devices, which the next one is planned by."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping

from sflam.planner.served import MOST_RATE, Rates
from sflam.records.history import RoundRecord


def rates_of(record: RoundRecord, *, shared: bool) -> dict[int, Rates]:
    """Return device -> its rates in a served round; none of rounds whose phases were not measured.

    Args:
        record: of the round.
        shared: whether devices shared one way to the server: of seconds in which n bodies came, each has an nth.
    """
    found = record.measured
    if found is None or not found.compute_s or not record.device_samples:
        return {}
    sending = found.link_s if shared else found.upload_s
    rates = {}
    for place, device in enumerate(record.participants):
        exchanges, samples = found.exchanges[place], record.device_samples[place]
        if not exchanges or not samples:
            continue
        received = found.bytes_down[place] - found.bytes_fetched[place]
        rates[device] = Rates(
            up=_rate(found.bytes_up[place], sending[place]),
            down=_rate(received, found.receive_s[place]),
            compute_s=found.compute_s[place] / samples,
            exchange_s=max(0.0, found.down_s[place] - found.receive_s[place]) / exchanges,
            wait_s=found.wait_s[place] / exchanges,
        )
    return rates


def middle(rounds: Iterable[Mapping[int, Rates]]) -> dict[int, Rates]:
    """Return device -> the medians of its rates over rounds."""
    every: dict[int, list[Rates]] = {}
    for one in rounds:
        for device, rates in one.items():
            every.setdefault(device, []).append(rates)
    names = ("up", "down", "compute_s", "exchange_s", "wait_s")
    return {
        device: Rates(**{name: statistics.median(getattr(each, name) for each in own) for name in names})
        for device, own in sorted(every.items())
    }


def _rate(size: int, seconds: float) -> float:
    """Return bit/s; ``MOST_RATE`` where bytes came in no time, or none came."""
    if size <= 0 or seconds <= 0 or not math.isfinite(seconds):
        return MOST_RATE
    return min(8 * size / seconds, MOST_RATE)
