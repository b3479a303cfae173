"""Devices that sit rounds out because what they trained was refused: for a time, never for good."""

from __future__ import annotations

from typing import Any

LONGEST = 16
"""Most rounds that one refusal costs."""


class Quarantine:
    """Who sits out, and until when, counted in rounds.

    A first refusal costs one round, the next ones two, four, and so on up to ``LONGEST``; each round that counts takes
    one refusal back.
    """

    def __init__(self) -> None:
        self._strikes: dict[int, int] = {}
        self._until: dict[int, int] = {}

    def strike(self, device: int, round: int) -> int:
        """Note a refusal in a round; return the rounds after it that the device sits out."""
        strikes = self._strikes[device] = self._strikes.get(device, 0) + 1
        rounds = int(min(LONGEST, 2 ** (strikes - 1)))
        self._until[device] = round + rounds
        return rounds

    def counted(self, device: int) -> None:
        """Note a round in which the device's work counted."""
        if device in self._strikes:
            self._strikes[device] -= 1
            if not self._strikes[device]:
                del self._strikes[device]
                self._until.pop(device, None)

    def out(self, round: int) -> frozenset[int]:
        """Return the devices that sit a round out."""
        return frozenset(device for device, last in self._until.items() if round <= last)

    def state(self) -> dict[str, Any]:
        """Return what must survive a crash between rounds; nothing where no device was refused."""
        return {"strikes": dict(self._strikes), "until": dict(self._until)} if self._strikes else {}

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        self._strikes = {int(device): int(count) for device, count in state.get("strikes", {}).items()}
        self._until = {int(device): int(last) for device, last in state.get("until", {}).items()}
