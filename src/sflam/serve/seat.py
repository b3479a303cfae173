"""A device's place in an open round: how far it is, and how long it has for what is next."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sflam.errors import Refused


@dataclass
class Seat:
    """One device in the open round.

    Attributes:
        exchanges: how many it will make.
        shares: its rows in each step of the fleet, where the server draws them; empty where its steps are its own.
        next: the exchange expected of it.
        computing: whether that one has arrived and is not answered yet.
        answers: exchange -> answer, of the step it is at or has just finished.
        seals: exchange -> digest of the body that was taken for it, of the same step; that of the result is at
            ``exchanges``.
        result: what it trained; None until it sends it.
        out: whether it was dropped from this round.
        since: when it was given its last answer, or the round opened: from then on it is to make its next exchange.
        receiving: bodies of it that are arriving now.
    """

    exchanges: int
    shares: tuple[int, ...] = ()
    next: int = 0
    computing: bool = False
    answers: dict[int, bytes] = field(default_factory=dict)
    seals: dict[int, bytes] = field(default_factory=dict)
    result: Any = None
    out: bool = False
    since: float = math.inf
    receiving: int = 0
    _renewed: int = -1

    def renew(self, now: float) -> None:
        """It begins anew with its next exchange, after a loss: it has its time again, once an exchange."""
        if self._renewed != self.next:
            self._renewed, self.since = self.next, now

    @property
    def active(self) -> bool:
        """Whether the round still waits for it."""
        return self.result is None and not self.out

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """The steps of the fleet in which it has rows, where the server draws them."""
        return tuple(step for step, rows in enumerate(self.shares) if rows)

    def length(self, legs: int) -> int:
        """Return the steps of the round, those without rows included."""
        return len(self.shares) or self.exchanges // legs

    def step(self, exchange: int, legs: int) -> int:
        """Return the step of the fleet that an exchange belongs to."""
        return self.steps[exchange // legs] if self.shares else exchange // legs

    def exchange(self, step: int, leg: int, legs: int) -> int:
        """Return the number of an exchange from its place; raises Refused, 409, in a step where it has no rows."""
        if not self.shares:
            return step * legs + leg
        if not (step < len(self.shares) and self.shares[step]):
            raise Refused(409, f"the device has no rows in step {step}; ask for the round")
        return bisect_left(self.steps, step) * legs + leg

    def expect_same(self, device: int, number: int, seal: bytes) -> None:
        """Raise Refused, 409, where another body was taken before: two machines are this device."""
        if self.seals.get(number, seal) != seal:
            raise Refused(
                409,
                f"device {device} sent another body for exchange {number} before: another machine uses its token, "
                "perhaps a copy of its memory card; give each machine a token (sflam enrol) and a folder of its own",
            )
