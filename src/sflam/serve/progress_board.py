"""What is known of the rounds done, for people who look on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sflam.records.history import RoundRecord


@dataclass
class ProgressBoard:
    """The rounds of a run.

    Attributes:
        rounds: how many there are to be.
        records: those done.
    """

    rounds: int = 0
    records: Sequence[RoundRecord] = field(default_factory=list)

    @property
    def accuracy(self) -> float | None:
        """The last one measured, in [0, 1]."""
        return next((one.accuracy for one in reversed(self.records) if one.accuracy is not None), None)

    @property
    def loss(self) -> float | None:
        """Training loss of the last round."""
        return self.records[-1].loss if self.records else None

    @property
    def bytes_up(self) -> int:
        """Bytes of bodies devices sent in the rounds done."""
        return sum(one.bytes_up + one.adapter_bytes_up for one in self.records)

    @property
    def bytes_down(self) -> int:
        """Bytes of bodies they received."""
        return sum(one.bytes_down + one.adapter_bytes_down for one in self.records)
