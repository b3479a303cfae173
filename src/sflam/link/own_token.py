"""A device's token in its file, and the next one beside it until the server has its hash.

The next token is on disk before the server learns of it, and takes the place of the one before by one renaming once the
server has answered: who dies in between finds both, and one that the server takes.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from sflam.errors import ServeError
from sflam.files import from_json, mode_of, replace_file, sync_folder, writing
from sflam.link.token import PREFIX, read_token

PATH = "/v1/token"
HEADER, RENEWS, DUE = "Sflam-Token", "renews", "due"
"""The header by which a device reports that it renews its token, and a server that this is due."""
NEXT = ".next"
"""After the name of the file, for the next token."""
PAUSE = 60.0
"""Seconds until one that could not be renewed is tried again."""
Once = Callable[[str, str, bytes, dict[str, str]], tuple[int, float | None, bytes]]


class OwnToken:
    """The token of a device, which it renews where the server finds that due.

    Args:
        path: its file; a link is followed.
        token: that it holds.
        notify: shows a line to the user of the device.
        clock: s.
    """

    def __init__(
        self,
        path: Path,
        token: str,
        notify: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path, self.notify, self.clock = path.resolve(), notify, clock
        self.token = token
        """What the file holds."""
        self.file = self.path.with_name(self.path.name + NEXT)
        self.renews = os.access(self.path.parent, os.W_OK)
        self._due, self._again, self._silent = False, 0.0, False

    def headers(self) -> dict[str, str]:
        """Return what goes with every request."""
        return {HEADER: RENEWS} if self.renews else {}

    def heard(self, value: str | None) -> None:
        """Take what the server answered in ``HEADER``, if anything."""
        self._due = value == DUE
        if self._due and not self.renews:
            self._remark(f"{self.path.parent} cannot be written; make it writable")

    @property
    def due(self) -> bool:
        """Whether the token is to be renewed now."""
        return self._due and self.renews and self.clock() >= self._again

    def next(self) -> str:
        """Return the next token, where there is one on disk; "" for none.

        Raises:
            ServeError: its file cannot be read, or holds another thing.
        """
        return read_token(self.file) if self.file.is_file() else ""

    def renew(self, once: Once) -> None:
        """Exchange the token for the next one; where that cannot be, it stays, and is tried again in a minute.

        Args:
            once: sends one request, and returns status, Retry-After and body.
        """
        self._again = self.clock() + PAUSE
        try:
            new = self.next() or self._made()
            sent = json.dumps({"sha256": hashlib.sha256(new.encode()).hexdigest()}).encode()
            status, _, found = once("POST", PATH, sent, {})
            if status != 200:
                return self._remark(f"the server answers by status {status}")
            ends = datetime.datetime.fromtimestamp(float(from_json(found)["ends"]), datetime.UTC)
            self.take()
        except (ValueError, KeyError, TypeError, OverflowError, OSError) as error:
            return self._remark(str(error) or type(error).__name__)
        self._due, self._again, self._silent = False, 0.0, False
        self.notify(f"the token of this device was renewed; it ends on {ends:%Y-%m-%d %H:%M} UTC")

    def take(self) -> None:
        """Let the next token be the one in the file; raises ServeError where the disk refuses."""
        following = self.next()
        with writing(self.path, "make its folder writable", ServeError):
            os.replace(self.file, self.path)
            sync_folder(self.path.parent)
        self.token = following

    def _made(self) -> str:
        """Return a new token, which is on disk as the next one."""
        new = PREFIX + secrets.token_urlsafe(32)
        with writing(self.file, "make its folder writable", ServeError):
            replace_file(self.file, new.encode(), mode=mode_of(self.path, 0o600))
        return new

    def _remark(self, why: str) -> None:
        """Show once why the token was not renewed; it is tried again every minute."""
        if not self._silent:
            self.notify(
                f"the token of this device is to be renewed and was not ({why[:200]}); it is tried again every minute"
            )
        self._silent = True
