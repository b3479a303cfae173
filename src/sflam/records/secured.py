"""How the adapters of a round were summed under masks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SecureRound:
    """One secure sum.

    Attributes:
        devices: those in the sum, of which the server learned no one's.
        bits: of a masked number.
        neighbours: devices that each of them shared masks with.
        threshold: how many of a secret's holders had to remain.
    """

    devices: tuple[int, ...]
    bits: int
    neighbours: int
    threshold: int
