"""Devices whose updates are again and again unlike those of the others: shown, and nothing is done about them.

In a round a device deviates when its update is more than ``FACTOR`` times as long as the median of the round's, or as
short, and its logarithm is an outlier by the modified z-score of B. Iglewicz and D. C. Hoaglin, How to Detect and
Handle Outliers, 1993: 0.6745 |x - median| / MAD > 3.5. It does so repeatedly in half of its rounds or more, and in
three.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from sflam.records.history import RoundRecord

FACTOR = 2.0
"""Honest devices were seen up to 1.9 times as far as the median, at Dirichlet 0.1."""
SCORE, NORMAL = 3.5, 0.6745
COHORT = 5
"""Fewest devices of a round whose spread means something."""
ROUNDS = 3
"""Fewest rounds in which a device deviated that make it shown."""


@dataclass
class Deviation:
    """How a device stood in its rounds.

    Attributes:
        device: its number.
        rounds: of those with enough devices to compare, in which it took part.
        ratios: its update's length over the median's, of those in which it deviated.
    """

    device: int
    rounds: int = 0
    ratios: list[float] = field(default_factory=list)

    @property
    def repeated(self) -> bool:
        """Whether it deviates repeatedly."""
        return len(self.ratios) >= ROUNDS and 2 * len(self.ratios) >= self.rounds

    @property
    def line(self) -> str:
        """A sentence for people."""
        return (
            f"device {self.device} moved {median(self.ratios):.3g} times as far as the median device, in "
            f"{len(self.ratios)} of its {self.rounds} rounds: look at its data, or see learn.robust"
        )


def deviating(records: Sequence[RoundRecord]) -> list[Deviation]:
    """Return the devices that deviate repeatedly, ascending; none where updates' lengths are not known."""
    found: dict[int, Deviation] = {}
    for record in records:
        known = {
            device: length
            for device, length in zip(record.participants, record.device_moved, strict=False)
            if length is not None and math.isfinite(length)
        }
        if len(known) < COHORT:
            continue
        ratios = ratios_of(known)
        for device in known:
            own = found.setdefault(device, Deviation(device))
            own.rounds += 1
            if device in ratios:
                own.ratios.append(ratios[device])
    return [found[device] for device in sorted(found) if found[device].repeated]


def ratios_of(lengths: dict[int, float]) -> dict[int, float]:
    """Return device -> its length over the median's, of the devices that deviate in a round."""
    middle = median(lengths.values())
    if not middle:
        return {}
    least = middle * 1e-12  # a device that did not move is far from all that did
    logs = {device: math.log(max(length, least) / middle) for device, length in lengths.items()}
    center = median(logs.values())
    spread = median(abs(log - center) for log in logs.values())
    return {
        device: lengths[device] / middle
        for device, log in logs.items()
        if abs(log) > math.log(FACTOR) and NORMAL * abs(log - center) > SCORE * spread
    }
