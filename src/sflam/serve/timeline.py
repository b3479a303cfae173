"""What each device does in a round, as the server sees it: it computes, sends, or waits for its answer.

computes  from an answer, or what it first fetched, to its next body: at work, or on the way there and back
sends     a body of it is on its way in
waits     its body has come, and its answer has not gone

Seconds are kept in a fixed number of cells, which grow wider with the round: a long one takes no more memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field

COMPUTES, SENDS, WAITS = STATES = ("computes", "sends", "waits")
CELLS = 60
MOST = 64
"""Devices of a round that a timeline is kept of: those that were heard of first."""
WIDTH = 0.05
"""Seconds of a cell when a round begins."""


@dataclass
class Strip:
    """One device in a round.

    Attributes:
        width: seconds of a cell.
        cells: of each cell, the seconds in each of ``STATES``.
        state: what it does now; None before it came, and once it has delivered.
        since: seconds from the beginning of the round to when that was last counted.
    """

    width: float = WIDTH
    cells: list[list[float]] = field(default_factory=list)
    state: str | None = None
    since: float = 0.0

    def turn(self, state: str | None, now: float) -> None:
        """From ``now`` on, seconds since the round began, the device does something else."""
        self.count(now)
        self.state = state

    def count(self, now: float) -> None:
        """Count what it did until ``now``."""
        while now > CELLS * self.width:
            self._widen()
        at, self.since = self.since, max(self.since, now)
        if self.state is None:
            return
        index = STATES.index(self.state)
        first, last = (min(int(time / self.width), CELLS - 1) for time in (at, now))
        self.cells += [[0.0] * len(STATES) for _ in range(len(self.cells), last + 1)]
        for cell in range(first, last + 1):
            end = now if cell == last else (cell + 1) * self.width
            self.cells[cell][index] += max(0.0, end - at)
            at = max(at, end)

    def seconds(self) -> dict[str, float]:
        """Return how long it did what."""
        return {state: sum(cell[index] for cell in self.cells) for index, state in enumerate(STATES)}

    def runs(self) -> list[tuple[str, float, float]]:
        """Return what it did most, as (state, from, to), in seconds since the round began; not where it did nothing."""
        found: list[tuple[str, float, float]] = []
        for number, cell in enumerate(self.cells):
            if not any(cell):
                continue
            state = STATES[cell.index(max(cell))]
            begin, end = number * self.width, (number + 1) * self.width
            if found and found[-1][0] == state and found[-1][2] == begin:
                found[-1] = state, found[-1][1], end
            else:
                found.append((state, begin, end))
        return found

    def copy(self) -> Strip:
        """Return the same, to be counted further."""
        return Strip(self.width, [list(cell) for cell in self.cells], self.state, self.since)

    def _widen(self) -> None:
        self.width *= 2
        pairs = [self.cells[start : start + 2] for start in range(0, len(self.cells), 2)]
        self.cells = [[sum(column) for column in zip(*pair, strict=True)] for pair in pairs]


@dataclass
class RoundTimeline:
    """The devices of the round that is open, or was last; not for several threads.

    Attributes:
        began: when it opened, s.
        ended: seconds it took; None while it is open.
        strips: device -> what it did.
    """

    began: float
    ended: float | None = None
    strips: dict[int, Strip] = field(default_factory=dict)

    def turn(self, device: int, state: str | None, now: float) -> None:
        """A device does something else from ``now`` on."""
        if device in self.strips or len(self.strips) < MOST:
            self.strips.setdefault(device, Strip()).turn(state, now - self.began)

    def seen(self, now: float) -> RoundTimeline:
        """Return a copy, counted until ``now``."""
        found = {device: strip.copy() for device, strip in self.strips.items()}
        elapsed = now - self.began if self.ended is None else self.ended
        for strip in found.values():
            strip.count(elapsed)
        return RoundTimeline(self.began, elapsed, found)
