"""When a device has too many blocks for its memory or its time, and when it may have them back: a rule of records.

A device is overloaded

    for memory   left < reserve (held + left), with what it reports of its fullest moment: at once
    for time     its seconds of computing > factor x the median of the other devices': ``settle_rounds`` rounds in a row
    as it is late, the round went on without it, though it had begun its steps: as many rounds in a row

and moves to the deepest cut that ends that by the planner's own model of memory and FLOP, by one block at least, and
never below the floor. After ``settle_rounds`` rounds at its cut without overload (twice as many after every time that
it was overloaded again) it moves to the deepest cut, up to the job's own, that its memory allows; whether it is in time
there the rounds that follow show, as nothing tells how fast a device is at what it does not do.

Everything is read from the records of rounds and from the moves themselves, so a server that starts again decides the
same.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sflam.learn.settings.repartition import RepartitionSettings
from sflam.records.history import RoundRecord
from sflam.records.served_round import CutMove
from sflam.units import human_bytes

MEMORY, TIME, LATE, SETTLED = "memory", "time", "late", "settled"
OVERLOADED = (MEMORY, TIME, LATE)


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a round showed of a device.

    Attributes:
        round: its number.
        held: bytes that its process held at most; 0 where that is not known.
        left: bytes that it could still have had; None where that is not known.
        compute_s: seconds of its computing; None where the round went on without it.
        others_s: the median of the other devices'; None where there is none to compare with.
    """

    round: int
    held: int = 0
    left: int | None = None
    compute_s: float | None = None
    others_s: float | None = None


@dataclass(frozen=True)
class Wish:
    """Where a device is to move, and why."""

    cut: int
    why: str
    detail: str = ""


class Overload:
    """The rule, and what it has seen.

    Args:
        settings: ``[repartition]``.
        allowed: the cuts that each device may have; the last of them is the job's own.
        memory: device, cut -> bytes of a training step at its fullest.
        flop: device, cut -> FLOP of a training step.
    """

    def __init__(
        self,
        settings: RepartitionSettings,
        allowed: Sequence[range],
        memory: Callable[[int, int], float],
        flop: Callable[[int, int], float],
    ) -> None:
        self.settings, self.allowed = settings, tuple(allowed)
        self.memory, self.flop = memory, flop
        self.seen: dict[int, list[Load]] = {}

    def note(self, record: RoundRecord) -> None:
        """Note what a round showed."""
        for device, load in loads_of(record).items():
            self.seen.setdefault(device, []).append(load)

    def wish(self, device: int, cut: int, moves: Sequence[CutMove]) -> Wish | None:
        """Return where a device at ``cut`` is to move; None where it stays.

        Args:
            device: its number.
            cut: blocks that it has.
            moves: its moves so far, in order.
        """
        since = moves[-1].round if moves else 0
        loads = [load for load in self.seen.get(device, []) if load.round >= since]
        if not loads:
            return None
        if cut > self.allowed[device][0] and (found := self._overloaded(device, cut, loads)):
            return found
        times = sum(move.why in OVERLOADED for move in moves)
        wait = self.settings.settle_rounds * 2 ** max(0, times - 1)
        home = self.allowed[device][-1]
        if cut >= home or len(loads) < wait:
            return None
        if any(self._short(load) or self._slow(load) or load.compute_s is None for load in loads[-wait:]):
            return None
        deeper = [to for to in range(cut + 1, home + 1) if self._fits(device, cut, to, loads[-1])]
        if not deeper:
            return None
        return Wish(deeper[-1], SETTLED, f"no overload in {wait} rounds")

    def _overloaded(self, device: int, cut: int, loads: Sequence[Load]) -> Wish | None:
        last, floor = loads[-1], self.allowed[device][0]
        shallower = range(floor, cut)
        if self._short(last):
            fitting = [to for to in shallower if self._fits(device, cut, to, last)]
            left, all_of_it = last.left or 0, last.held + (last.left or 0)
            detail = f"{human_bytes(left)} of {human_bytes(all_of_it)} of memory are free"
            return Wish(max(fitting, default=floor), MEMORY, detail)
        row = loads[-self.settings.settle_rounds :]
        if len(row) < self.settings.settle_rounds:
            return None
        if all(load.compute_s is None for load in row):
            return Wish(cut - 1, LATE, f"{len(row)} rounds went on without it")
        if not all(self._slow(load) for load in row):
            return None
        took, others = last.compute_s or 0.0, last.others_s or 0.0
        most = self.settings.slow_factor * others
        quick = [to for to in shallower if took * self.flop(device, to) <= most * self.flop(device, cut)]
        detail = f"it computes {took:.3g} s, the others {others:.3g} s"
        return Wish(max(quick, default=floor), TIME, detail)

    def _short(self, load: Load) -> bool:
        """Whether less memory was left than is to stay free."""
        return load.left is not None and load.left < self.settings.memory_reserve * (load.held + load.left)

    def _slow(self, load: Load) -> bool:
        """Whether its computing took too long; not where the round went on without it, of which nothing is known."""
        if load.compute_s is None or load.others_s is None:
            return False
        return load.compute_s > self.settings.slow_factor * load.others_s

    def _fits(self, device: int, cut: int, to: int, load: Load) -> bool:
        """Whether enough memory would be left with the blocks of another cut."""
        if load.left is None:
            return True
        more = self.memory(device, to) - self.memory(device, cut)
        return load.left - more >= self.settings.memory_reserve * (load.held + load.left)


def loads_of(record: RoundRecord) -> dict[int, Load]:
    """Return what a round showed of its devices, those included that it went on without after they had begun."""
    found, number = record.measured, record.round
    if found is None or not found.compute_s:
        return {}
    loads = {}
    for place, device in enumerate(record.participants):
        others = [*found.compute_s[:place], *found.compute_s[place + 1 :]]
        loads[device] = Load(
            round=number,
            held=found.memory[place] if found.memory else 0,
            left=found.memory_left[place] if found.memory_left else None,
            compute_s=found.compute_s[place],
            others_s=statistics.median(others) if others else None,
        )
    begun = zip(found.left_out, found.left_steps, strict=True)
    return loads | {device: Load(round=number) for device, steps in begun if steps}
