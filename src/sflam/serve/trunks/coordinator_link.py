"""A trunk server's way to its coordinator: every request names the process, which tells two of one name apart."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any

from sflam.errors import ServeError
from sflam.files import from_json
from sflam.link.https_client import SHORT, Link

INSTANCE = "Sflam-Instance"
"""The header that names the process of a trunk server."""


class CoordinatorLink:
    """Requests to the coordinator, of one thread.

    Args:
        link: the way there.
        instance: of this process.
    """

    def __init__(self, link: Link, instance: str) -> None:
        self.link, self._headers = link, {INSTANCE: instance}

    @classmethod
    def two(cls, reach: Callable[[], Link]) -> tuple[CoordinatorLink, CoordinatorLink]:
        """Return the ways of two threads of one process."""
        instance = secrets.token_hex(8)
        return cls(reach(), instance), cls(reach(), instance)

    def json(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON that a request is answered with, None for an empty answer; raises as Link.call does."""
        sent = None if body is None else json.dumps(body).encode()
        found = self.link.call(method, path, sent, self._headers, most=SHORT)
        try:
            return from_json(found) if found else None
        except ValueError:
            raise ServeError(
                f"{self.link.host}:{self.link.port} answers {path} with no JSON; is it an sflam server?"
            ) from None

    def send(self, method: str, path: str, body: bytes) -> None:
        """Send a body."""
        self.link.call(method, path, body, self._headers, most=SHORT)

    def get(self, path: str, most: int) -> bytes:
        """Return a body of at most so many bytes."""
        return self.link.call("GET", path, None, self._headers, most=most)

    def close(self) -> None:
        """Close the connection."""
        self.link.close()
