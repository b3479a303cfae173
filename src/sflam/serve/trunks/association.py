"""Which trunk server each device of a served run has, round after round: on disk before its round opens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sflam.planner.served_servers import ServedServers
from sflam.records.history import RoundRecord
from sflam.records.served_round import ServerMove
from sflam.serve.kept_moves import ORDERED, RELEASED, KeptMoves

MEASURED = "measured"


class Association(KeptMoves[ServerMove]):
    """The servers of a run's devices and their moves; see :class:`sflam.serve.kept_moves.KeptMoves`.

    Args:
        homes: the server that the job gives each device; devices move among these.
        plan: plans from what rounds measured; None leaves moves to operators.
        file: where the moves are kept; None keeps them in memory alone.
        records: the rounds done; those that follow are added by who runs them.

    Raises:
        ServeError: the file cannot be read, or holds something else.
    """

    kind, what = ServerMove, "servers"
    advice = "put the right one back: it tells at which servers the rounds of this run were made"

    def __init__(
        self,
        homes: Sequence[int],
        plan: ServedServers | None = None,
        file: Path | None = None,
        records: Sequence[RoundRecord] = (),
    ) -> None:
        self.servers, self.plan, self._noted = tuple(sorted(set(homes))), plan, 0
        self.all_here: Callable[[], bool] = lambda: True
        """Whether no trunk server is away; while one is, nothing is planned, as another has its devices."""
        super().__init__(homes, file, records)

    def may_have(self, device: int, given: int) -> bool:
        """Whether a server is one of the job's."""
        return given in self.servers

    def chosen(self, round: int, ordered: Mapping[int, int]) -> list[ServerMove]:
        """Return the moves before a round that is decided now; ``ordered`` is device -> server."""
        now = self.in_force
        found = {
            device: (server, ORDERED, "") for device, server in ordered.items() if self._sound(device, server)
        }
        if self.plan is None:
            for device, home in enumerate(self.homes):
                last = self.last(device)
                if device not in found and last is not None and last.why == ORDERED:
                    found[device] = (home, RELEASED, "")
        else:
            found |= self._planned(round, found)
        return [
            ServerMove(round=round, device=device, before=now[device], server=server, why=why, detail=detail)
            for device, (server, why, detail) in sorted(found.items())
            if server != now[device]
        ]

    def _sound(self, device: int, server: int) -> bool:
        """Whether an order can be kept: those on disk may be of the job before."""
        return 0 <= device < len(self.homes) and self.may_have(device, server)

    def _planned(
        self, round: int, ordered: Mapping[int, tuple[int, str, str]]
    ) -> dict[int, tuple[int, str, str]]:
        """Return device -> its server, why and what was planned, of those that a plan moves now."""
        assert self.plan is not None
        for record in self.records[self._noted :]:
            self.plan.note(record)
        self._noted = len(self.records)
        since = max((move.round for move in self.moves), default=0)
        if round - since < self.plan.settings.keep_rounds or not self.all_here():
            return {}
        now = list(self.in_force)
        for device, (server, _, _) in ordered.items():
            now[device] = server
        plan = self.plan.plan(now, ordered.keys())
        if plan is None:
            return {}
        return {device: (server, MEASURED, str(plan)) for device, server in plan.server_of.items()}
