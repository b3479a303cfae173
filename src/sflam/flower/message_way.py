"""A round's adapters out of a Flower message, and what was trained into the reply to it."""

from __future__ import annotations

from sflam.codec.messages import AdapterFrame
from sflam.errors import ServeError
from sflam.link.adapter_way import AdapterWay, adapters_in


class MessageWay(AdapterWay):
    """By one message, and its reply; the device leaves once it delivered, or the round is gone.

    Args:
        round: the number that the message is for.
        body: the adapters, as the protocol of the link has them; empty where the device trains none.
    """

    def __init__(self, round: int, body: bytes) -> None:
        self.round, self._body = round, body
        self.attempt = -1
        self.trained: bytes | None = None
        """What the device delivers; None until it does."""
        self.headers: dict[str, str] = {}
        """What goes beside it."""

    def fetch(self, round: int, attempt: int, count: int) -> AdapterFrame | None:
        """Return the adapters [P] of the message; raises ServeError where it is for another round."""
        if round != self.round:
            raise ServeError(f"the message is for round {self.round + 1}, and round {round + 1} is open")
        return adapters_in(self._body, count)

    def deliver(self, round: int, attempt: int, body: bytes, headers: dict[str, str]) -> None:
        """Keep what was trained, for the reply."""
        self.attempt, self.trained, self.headers = attempt, bytes(body), headers

    def over(self, round: int) -> bool:
        """Return whether it delivered, or a later round is open."""
        return self.trained is not None or round > self.round
