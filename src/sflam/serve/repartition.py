"""Which cut each device of a served run has, round after round: what moved it is on disk before its round opens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sflam.config import Job
from sflam.planner.leakage import least_cut
from sflam.records.history import RoundRecord
from sflam.records.served_round import CutMove
from sflam.serve.kept_moves import ORDERED, RELEASED, KeptMoves
from sflam.serve.overload import Overload, Wish


class Repartition(KeptMoves[CutMove]):
    """The cuts of a run and their moves; see :class:`sflam.serve.kept_moves.KeptMoves`.

    Args:
        allowed: the cuts that each device may have; the last of them is the job's own.
        overload: the rule by which the server itself moves devices; None leaves that to operators.
        file: where the moves are kept; None keeps them in memory alone.
        records: the rounds done; those that follow are added by who runs them.

    Raises:
        ServeError: the file cannot be read, or holds something else.
    """

    kind, what = CutMove, "cuts"
    advice = "put the right one back: it tells at which cuts the rounds of this run were made"

    def __init__(
        self,
        allowed: Sequence[range],
        overload: Overload | None = None,
        file: Path | None = None,
        records: Sequence[RoundRecord] = (),
    ) -> None:
        self.allowed, self.overload, self._noted = tuple(allowed), overload, 0
        super().__init__([cuts[-1] for cuts in allowed], file, records)

    @property
    def cuts(self) -> tuple[int, ...]:
        """The cuts in force."""
        return self.in_force

    def may_have(self, device: int, given: int) -> bool:
        """Whether a cut is none deeper than the job's own."""
        return 0 <= given <= self.homes[device]

    def chosen(self, round: int, ordered: Mapping[int, int]) -> list[CutMove]:
        """Return the moves before a round that is decided now; ``ordered`` is device -> blocks."""
        while self.overload and self._noted < len(self.records):
            self.overload.note(self.records[self._noted])
            self._noted += 1
        return [
            move
            for device, cut in enumerate(self.cuts)
            if (move := self._move(round, device, cut, ordered.get(device))) and move.cut != cut
        ]

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


def cuts_allowed(job: Job) -> list[range]:
    """Return the cuts that each device of a job may have while it is served: from the floor to the job's own.

    Raises:
        ConfigError: the audit of ``plan.least_leakage`` cannot be used.
    """
    floor = max(job.repartition.least_cut, least_cut(job))
    return [range(min(floor, place.cut), place.cut + 1) for place in job.placements]


def _within(cut: int, allowed: range) -> int:
    return min(max(cut, allowed.start), allowed.stop - 1)
