"""Which cut each device of a served run has, round after round: what moved it is on disk before its round opens.

A server that was killed goes on with the same cuts; one that goes back to an earlier round forgets the later moves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from sflam.config import Job
from sflam.errors import ServeError
from sflam.files import from_json, reading, replace_file, writing
from sflam.planner.leakage import least_cut
from sflam.records.codec import from_json_values
from sflam.records.history import RoundRecord
from sflam.records.served_round import CutMove
from sflam.serve.overload import Overload, Wish

ORDERED, RELEASED = "ordered", "released"
ADVICE = "put the right one back: it tells at which cuts the rounds of this run were made"


class Repartition:
    """The cuts of a run and their moves.

    Args:
        allowed: the cuts that each device may have; the last of them is the job's own.
        overload: the rule by which the server itself moves devices; None leaves that to operators.
        file: where the moves are kept; None keeps them in memory alone.
        records: the rounds done; those that follow are added by who runs them.

    Raises:
        ServeError: the file cannot be read, or holds something else.
    """

    def __init__(
        self,
        allowed: Sequence[range],
        overload: Overload | None = None,
        file: Path | None = None,
        records: Sequence[RoundRecord] = (),
    ) -> None:
        self.allowed, self.overload = tuple(allowed), overload
        self.homes = tuple(cuts[-1] for cuts in allowed)
        self.file, self.records, self._noted = file, records, 0
        self.moves: list[CutMove] = []
        self.decided = -1
        """The last round whose cuts are decided."""
        if file is not None and file.exists():
            self._read(file)
            self._go_back(len(records))

    @property
    def cuts(self) -> tuple[int, ...]:
        """The cuts in force."""
        moved = {move.device: move.cut for move in self.moves}
        return tuple(moved.get(device, home) for device, home in enumerate(self.homes))

    def of(self, round: int) -> tuple[CutMove, ...]:
        """Return the moves before a round."""
        return tuple(move for move in self.moves if move.round == round)

    def moved(self, device: int) -> int:
        """Return how often a device was moved."""
        return sum(move.device == device for move in self.moves)

    def decide(self, round: int, ordered: Mapping[int, int]) -> tuple[CutMove, ...]:
        """Return the moves before a round, which are decided once, however often it is opened.

        Args:
            round: its number.
            ordered: device -> the blocks that an operator gives it.

        Raises:
            ServeError: they cannot be written.
        """
        if round <= self.decided:
            return self.of(round)
        while self.overload and self._noted < len(self.records):
            self.overload.note(self.records[self._noted])
            self._noted += 1
        found = [
            move
            for device, cut in enumerate(self.cuts)
            if (move := self._move(round, device, cut, ordered.get(device))) and move.cut != cut
        ]
        self.moves += found
        self.decided = round
        if found:  # else the cuts are as they were, also for who reads the file
            self._write()
        return tuple(found)

    def _go_back(self, done: int) -> None:
        """Forget the moves of later rounds than the next; the run was set back, and may take another course."""
        kept = [move for move in self.moves if move.round <= done]
        self.decided = min(self.decided, done)
        if len(kept) < len(self.moves):
            self.moves = kept
            self._write()

    def _move(self, round: int, device: int, cut: int, ordered: int | None) -> CutMove | None:
        own = [move for move in self.moves if move.device == device]
        if ordered is not None:
            wish: Wish | None = Wish(_within(ordered, self.allowed[device]), ORDERED)
        elif own and own[-1].why == ORDERED and cut != self.homes[device]:
            wish = Wish(self.homes[device], RELEASED)
        else:
            wish = self.overload.wish(device, cut, own) if self.overload else None
        if wish is None:
            return None
        to, why, detail = wish.cut, wish.why, wish.detail
        return CutMove(round=round, device=device, before=cut, cut=to, why=why, detail=detail)

    def _write(self) -> None:
        if self.file is None:
            return
        kept = {"decided": self.decided, "moves": [asdict(move) for move in self.moves]}
        with writing(f"cuts {self.file}", "make room", ServeError):
            replace_file(self.file, (json.dumps(kept) + "\n").encode())

    def _read(self, file: Path) -> None:
        with reading(file, ADVICE, ServeError):
            text = file.read_bytes()
        try:
            found = from_json(text)
            self.decided = int(found["decided"])
            self.moves = [from_json_values(CutMove, move, "move") for move in found["moves"]]
            homes = dict(enumerate(self.homes))
            if not all(0 <= move.cut <= homes.get(move.device, -1) for move in self.moves):
                raise ValueError("a device or a cut that there is not")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ServeError(f"{file} holds no moves of cuts ({error}); {ADVICE}") from None


def cuts_allowed(job: Job) -> list[range]:
    """Return the cuts that each device of a job may have while it is served: from the floor to the job's own.

    Raises:
        ConfigError: the audit of ``plan.least_leakage`` cannot be used.
    """
    floor = max(job.repartition.least_cut, least_cut(job))
    return [range(min(floor, place.cut), place.cut + 1) for place in job.placements]


def _within(cut: int, allowed: range) -> int:
    return min(max(cut, allowed.start), allowed.stop - 1)
