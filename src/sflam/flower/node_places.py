"""Which Flower node is which device: a node keeps its place, and one that is gone leaves it to the next."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from sflam.errors import ServeError
from sflam.files import from_json, replace_file


class NodePlaces:
    """The nodes of a run's devices, on disk, so that a run that goes on finds every node in its place.

    Args:
        path: the JSON file; it need not exist yet.
        count: devices there are.

    Raises:
        ServeError: the file is damaged, or of another number of devices.
    """

    def __init__(self, path: Path, count: int) -> None:
        self.path, self.count = path, count
        self._nodes: list[int | None] = [None] * count
        if path.exists():
            self._nodes = self._read(count)

    def seat(self, nodes: Iterable[int]) -> dict[int, int]:
        """Return node -> device of the nodes that have a place, new ones in ascending order; the rest waits for one.

        A place is free where no node ever had it, or its node is not among ``nodes`` any more.
        """
        here = set(nodes)
        waiting = sorted(here - set(self._nodes), reverse=True)
        before = list(self._nodes)
        for wanted in (None, *(node for node in before if node not in here)):
            for device, node in enumerate(self._nodes):
                if waiting and node == wanted and node not in here:
                    self._nodes[device] = waiting.pop()
        if self._nodes != before:
            replace_file(self.path, json.dumps({"devices": self._nodes}).encode())
        return {node: device for device, node in enumerate(self._nodes) if node is not None and node in here}

    def _read(self, count: int) -> list[int | None]:
        try:
            found = from_json(self.path.read_bytes())["devices"]
            if not all(node is None or type(node) is int for node in found) or len(found) != count:
                raise ValueError(f"{count} nodes were expected")
            return list(found)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ServeError(
                f"{self.path} cannot be used ({error}); put it back, or start a new run"
            ) from error
