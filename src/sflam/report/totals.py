"""What a whole run cost and reached, summed over its rounds, and how such numbers are written for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

from sflam.records.history import TEST, RoundRecord, part_of
from sflam.units import human_si


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Sums over the rounds of a run.

    Attributes:
        rounds: rounds finished.
        samples: training samples used.
        device_steps: mini-batch steps of all devices.
        bytes_up: bytes of the steps (activations), devices to server.
        bytes_down: bytes of the steps (gradients), server to devices.
        adapter_bytes: adapter bytes both ways, with what the exact aggregation adds.
        seconds: wall-clock time in s.
        part: of the data that rounds were evaluated on, ``test`` or ``validation``.
        accuracy: accuracy of the last evaluated round on that part, in [0, 1]; None when no round was evaluated.
        best_accuracy: highest accuracy; None when no round was evaluated.
        best_round: the first round that reached it.
        virtual_s: seconds on the virtual clock; None where no network was simulated.
        energy_j: joules of every kind; None where no network was simulated.
    """

    rounds: int
    samples: int
    device_steps: int
    bytes_up: int
    bytes_down: int
    adapter_bytes: int
    seconds: float
    accuracy: float | None
    best_accuracy: float | None
    best_round: int | None
    virtual_s: float | None = None
    energy_j: float | None = None
    part: str = TEST

    @property
    def total_bytes(self) -> int:
        """Bytes of every kind that crossed the network."""
        return self.bytes_up + self.bytes_down + self.adapter_bytes

    @property
    def steps_per_second(self) -> float:
        """Device steps per second of wall-clock time; 0 before any time has passed."""
        return self.device_steps / self.seconds if self.seconds > 0 else 0.0


def totals(records: Sequence[RoundRecord]) -> Totals:
    """Return the sums over ``records``, which may be empty."""
    scores = [(item.round, item.evaluated_accuracy) for item in records]
    measured = [(number, score) for number, score in scores if is_measured(score)]
    charges = [item.charge for item in records if item.charge is not None]
    best = max(measured, key=lambda pair: (pair[1], -pair[0]), default=(None, None))
    return Totals(
        rounds=len(records),
        samples=sum(item.samples for item in records),
        device_steps=sum(item.device_steps for item in records),
        bytes_up=sum(item.bytes_up for item in records),
        bytes_down=sum(item.bytes_down for item in records),
        adapter_bytes=sum(item.total_bytes - item.bytes_up - item.bytes_down for item in records),
        seconds=math.fsum(item.seconds for item in records),
        accuracy=measured[-1][1] if measured else None,
        best_accuracy=best[1],
        best_round=best[0],
        virtual_s=charges[-1].clock if charges else None,
        energy_j=math.fsum(charge.energy for charge in charges) if charges else None,
        part=part_of(records),
    )


def is_measured(value: float | None) -> TypeGuard[float]:
    """Return whether ``value`` is a number: evaluated, and not diverged."""
    return value is not None and math.isfinite(value)


def percent(share: float | None) -> str:
    """Return a share in [0, 1] as a percentage: ``0.9123`` -> ``'91.2 %'``, None -> ``'-'``."""
    return "-" if share is None else f"{100 * share:.1f} %"


def decimal(value: float | None) -> str:
    """Return a loss for a column: four decimals, or the exponent form beyond 1000; None -> ``'-'``."""
    if value is None:
        return "-"
    return f"{value:.4f}" if abs(value) < 1000 or not math.isfinite(value) else f"{value:.3e}"


def duration(seconds: float) -> str:
    """Return a time for people: ``'0.42 s'``, ``'1 min 15 s'``, ``'1 h 02 min'``."""
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def brief(seconds: float) -> str:
    """Return a time for people that may be far below a second: ``'3.2 ms'``, else as ``duration`` does."""
    return human_si(seconds, "s") if 0 < seconds < 1 else duration(seconds) if seconds else "0 s"


def joules(value: float) -> str:
    """Return an energy for people."""
    return human_si(value, "J")
