"""The way of a device's steps: to the server it joined, or to the trunk server that a round names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sflam.errors import BrokenOff, Refused, ServeError, TrunkAway
from sflam.link.address import server_address
from sflam.link.https_client import Link

PATIENCE_S, TIMEOUT_S = 5.0, 30.0
"""Seconds without an answer of a trunk server after which the coordinator is asked, and that one answer may take."""
LONGEST_CERTIFICATE, LONGEST_TEXT = 1 << 16, 300


@dataclass(frozen=True)
class TrunkAt:
    """The trunk server of a device in an opening of a round.

    Attributes:
        name: of the server.
        url: where it is.
        certificate: its own, PEM, which alone is trusted; "" trusts as the device does its coordinator.
        token: by which it knows the device, in this opening alone.
    """

    name: str
    url: str
    certificate: str
    token: str


def trunk_at(found: Any) -> TrunkAt | None:
    """Return the trunk server in what a coordinator answers, None where it names none; raises ValueError for others."""
    if found is None:
        return None
    names = ("name", "url", "certificate", "token")
    if not (isinstance(found, dict) and all(isinstance(found.get(name), str) for name in names)):
        raise ValueError
    made = TrunkAt(*(found[name] for name in names))
    if len(made.certificate) > LONGEST_CERTIFICATE:
        raise ValueError
    short = (made.name, made.url, made.token)
    if any(len(text) > LONGEST_TEXT or not text.isascii() or not text.isprintable() for text in short):
        raise ValueError
    server_address(made.url)  # a ServeError is a ValueError
    return made


class TrunkWay:
    """Where the steps of a round go.

    Args:
        joined: the way to the server that was joined, which all else goes.
    """

    def __init__(self, joined: Link) -> None:
        self.joined = self.link = joined
        self._server: TrunkAt | None = None

    def to(self, server: TrunkAt | None) -> Link:
        """Return the way to the server that a round names; that which was joined where it names none.

        Raises:
            ServeError: plain HTTP beyond this machine, which was not allowed, or a certificate that is none.
        """
        if server == self._server:
            return self.link
        self.close()
        self._server = server
        if server is not None:
            joined = self.joined
            self.link = Link(
                server.url,
                server.token,
                ca=joined.ca,
                certificate=joined.certificate,
                key=joined.key,
                pinned=server.certificate,
                insecure=joined.insecure,
                patience=min(PATIENCE_S, joined.patience),
                timeout=min(TIMEOUT_S, joined.timeout),
                notify=joined.notify,
                sleep=joined.sleep,
            )
        return self.link

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Raise TrunkAway where a trunk server does not answer, or knows nothing of the device."""
        try:
            yield
        except BrokenOff:
            raise
        except Refused as refused:
            if self._server is None or refused.status != 401:
                raise
            raise TrunkAway(
                f"trunk server {self._server.name} does not know this device ({refused})"
            ) from refused
        except ServeError as error:
            if self._server is None:
                raise
            self.link.close()
            raise TrunkAway(f"trunk server {self._server.name}: {error}") from error

    def close(self) -> None:
        """Close the connection to a trunk server; from then on steps go to the server that was joined."""
        if self.link is not self.joined:
            self.link.close()
        self.link, self._server = self.joined, None
