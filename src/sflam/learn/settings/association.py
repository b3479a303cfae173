"""``[association]``: when the devices of a run over several trunk servers move to another server. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from sflam.ranges import Ranges

OFF, ORDERED, MEASURED = "off", "ordered", "measured"
MODES = (OFF, ORDERED, MEASURED)


@dataclass(frozen=True, kw_only=True)
class AssociationSettings:
    """When a served device moves to another of the job's servers between rounds; other commands leave it where it is.

    Attributes:
        mode: who moves the devices of ``fleet.servers`` in a served run: nothing (``off``), an operator (``ordered``,
            by ``sflam admin SERVER server``), or also the server, where the round is measured to be shorter by it
            (``measured``). A server's devices are averaged together first, and with ``learn.trunk = "shared"`` share
            one trunk, so a move changes what is learned.
        saves: share of the predicted seconds of a round that a new association must save before any device moves,
            which also pays for what moves cost.
        keep_rounds: rounds that an association stays before the server changes it again, so that it is measured.
    """

    mode: str = OFF
    saves: float = 0.1
    keep_rounds: int = 2

    def __post_init__(self) -> None:
        ranges = Ranges(self, "association")
        ranges.one_of(MODES, "mode")
        ranges.require(0 < self.saves < 1, "saves", "it must be a share, more than 0 and less than 1")
        ranges.at_least(1, "keep_rounds")
        ranges.check()

    @property
    def moves(self) -> bool:
        """Whether devices may move."""
        return self.mode != OFF
