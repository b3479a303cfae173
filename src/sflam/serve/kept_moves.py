"""What each device of a served run has, round after round, and what moved it: on disk before its round opens.

A server that was killed goes on with the same; one that goes back to an earlier round forgets the later moves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from sflam.errors import ServeError
from sflam.files import from_json, reading, replace_file, writing
from sflam.records.codec import from_json_values
from sflam.records.history import RoundRecord
from sflam.records.served_round import CutMove, ServerMove

ORDERED, RELEASED = "ordered", "released"
Move = TypeVar("Move", CutMove, ServerMove)


class KeptMoves(Generic[Move]):
    """What devices have, and their moves.

    Args:
        homes: what the job gives each device.
        file: where the moves are kept; None keeps them in memory alone.
        records: the rounds done; those that follow are added by who runs them.

    Raises:
        ServeError: the file cannot be read, or holds something else.
    """

    kind: type[Move]
    what: ClassVar[str]
    """What devices are given, in words."""
    advice: ClassVar[str]

    def __init__(
        self, homes: Sequence[int], file: Path | None = None, records: Sequence[RoundRecord] = ()
    ) -> None:
        self.homes, self.file, self.records = tuple(homes), file, records
        self.moves: list[Move] = []
        self.decided = -1
        """The last round for which it is decided."""
        if file is not None and file.exists():
            self._read(file)
            self._go_back(len(records))

    @property
    def in_force(self) -> tuple[int, ...]:
        """What each device has now."""
        moved = {move.device: move.to for move in self.moves}
        return tuple(moved.get(device, home) for device, home in enumerate(self.homes))

    def of(self, round: int) -> tuple[Move, ...]:
        """Return the moves before a round."""
        return tuple(move for move in self.moves if move.round == round)

    def moved(self, device: int) -> int:
        """Return how often a device was moved."""
        return sum(move.device == device for move in self.moves)

    def last(self, device: int) -> Move | None:
        """Return the last move of a device; None where it was never moved."""
        return next((move for move in reversed(self.moves) if move.device == device), None)

    def decide(self, round: int, ordered: Mapping[int, int]) -> tuple[Move, ...]:
        """Return the moves before a round, which are decided once, however often it is opened.

        Args:
            round: its number.
            ordered: device -> what an operator gives it.

        Raises:
            ServeError: they cannot be written.
        """
        if round <= self.decided:
            return self.of(round)
        found = self.chosen(round, ordered)
        self.moves += found
        self.decided = round
        if found:  # else all is as it was, also for who reads the file
            self._write()
        return tuple(found)

    def chosen(self, round: int, ordered: Mapping[int, int]) -> list[Move]:
        """Return the moves before a round that is decided now."""
        raise NotImplementedError

    def may_have(self, device: int, given: int) -> bool:
        """Whether a device of the run may be given this."""
        raise NotImplementedError

    def _go_back(self, done: int) -> None:
        """Forget the moves of later rounds than the next; the run was set back, and may take another course."""
        kept = [move for move in self.moves if move.round <= done]
        self.decided = min(self.decided, done)
        if len(kept) < len(self.moves):
            self.moves = kept
            self._write()

    def _write(self) -> None:
        if self.file is None:
            return
        kept = {"decided": self.decided, "moves": [asdict(move) for move in self.moves]}
        with writing(f"{self.what} {self.file}", "make room", ServeError):
            replace_file(self.file, (json.dumps(kept) + "\n").encode())

    def _read(self, file: Path) -> None:
        with reading(file, self.advice, ServeError):
            text = file.read_bytes()
        try:
            found = from_json(text)
            self.decided = int(found["decided"])
            self.moves = [from_json_values(self.kind, move, "move") for move in found["moves"]]
            places = range(len(self.homes))
            if not all(move.device in places and self.may_have(move.device, move.to) for move in self.moves):
                raise ValueError(f"a device or {self.what} that there is not")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ServeError(f"{file} holds no moves of {self.what} ({error}); {self.advice}") from None
