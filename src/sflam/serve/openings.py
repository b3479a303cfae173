"""Which devices were asked at each opening of a round, over restarts: what they sent then, they have given away."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from sflam.errors import ServeError
from sflam.files import ANYONE


class Openings:
    """Counts, per round, how often each device was asked; every opening is on disk before it begins.

    Args:
        path: a line for each opening; None keeps them in memory alone.

    Raises:
        ServeError: the file is damaged.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._asked: dict[int, Counter[int]] = {}
        if path is None or not path.exists():
            return
        try:
            whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")  # a torn line began no opening
            for line in filter(None, whole.split("\n")):
                round, devices = json.loads(line)
                self._count(round, map(int, devices))
        except (OSError, ValueError, TypeError) as error:
            raise ServeError(f"{path} cannot be read ({error}); put it back, or start a new run") from error

    def add(self, round: int, devices: Iterable[int]) -> None:
        """Note an opening of a round for ``devices``; raises ServeError where it cannot be written."""
        asked = sorted(devices)
        self._count(round, asked)
        if self.path is None:
            return
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, ANYONE)
            try:
                os.write(descriptor, f"{json.dumps([round, asked])}\n".encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ServeError(f"{self.path} cannot be written ({error})") from error

    def asked(self, round: int) -> dict[int, int]:
        """Return device -> how often it was asked to take part in a round."""
        return dict(sorted(self._asked.get(round, {}).items()))

    def _count(self, round: int, devices: Iterable[int]) -> None:
        self._asked.setdefault(round, Counter()).update(devices)
