"""Another control plane that calls devices to a round, where they do not wait at the server for one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from sflam.model.adapters import State


class Summons(Protocol):
    """Chooses the devices of every round and lets them come; see :class:`sflam.serve.fleet.RemoteFleet`."""

    def begin(self, round: int, state: State) -> None:
        """Note the global adapters ``state`` that a round begins with."""

    def call(self, out: Collection[int]) -> None:
        """Let the devices of the round come, chosen anew among those not ``out``; also where it is opened once more.

        Raises:
            ServeError: none can be called.
        """

    def called(self) -> tuple[int, ...]:
        """Return the devices that are coming, or have come, ascending; raises ServeError where none is left."""
