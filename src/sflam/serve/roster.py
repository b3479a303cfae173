"""The roster: which devices may join, by name and number, each by a token of which only the hash is kept.

A roster is a JSON file. A token is 32 random bytes, so its SHA-256 can be stored as it is: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sflam.errors import Refused, ServeError
from sflam.files import from_json, replace_file, writing
from sflam.link.token import PREFIX
from sflam.locks import alone

DAY = 86400.0
PATIENCE_S = 30.0
"""How long one who changes the roster waits for others who do."""


@dataclass(frozen=True)
class Entry:
    """One device that may join.

    Attributes:
        name: its name.
        device: its number in the fleet.
        sha256: hexadecimal SHA-256 of its token.
        expires: Unix time after which the token is of no use.
        revoked: whether it was revoked.
    """

    name: str
    device: int
    sha256: str
    expires: float
    revoked: bool = False


class Roster:
    """The devices that may join, read again whenever the file has changed.

    Args:
        path: the JSON file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int] | None = None
        self._entries: dict[str, Entry] = {}

    def entries(self) -> dict[str, Entry]:
        """Return the devices by name.

        Raises:
            ServeError: the file cannot be read, or is no roster.
        """
        try:
            found = self.path.stat()
            stamp = (found.st_mtime_ns, found.st_ino)
            if stamp != self._stamp:
                rows = from_json(self.path.read_text(encoding="utf-8"))["devices"]
                entries = [Entry(**row) for row in rows]
                self._entries = {entry.name: entry for entry in entries}
                self._stamp = stamp
        except (
            FileNotFoundError
        ):  # what was read stays good: a roster that is away for a moment revokes nothing
            self._stamp = None
        except OSError as error:
            raise ServeError(
                f"roster {self.path} cannot be read ({error.strerror}); make it readable"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ServeError(
                f"{self.path} is no roster of devices ({error}); enrol the devices again"
            ) from error
        return self._entries

    def enrol(self, name: str, days: float = 30.0) -> str:
        """Let a device in, or give a known one a new token; return the token, which is stored nowhere.

        Raises:
            ServeError: an empty or odd name, no lifetime, or a roster that cannot be written.
        """
        if not name or len(name) > 64 or not all(letter.isalnum() or letter in "-_." for letter in name):
            raise ServeError(f"device name {name!r}: use 1..64 letters, digits, '-', '_' or '.'")
        if not days > 0:
            raise ServeError(f"a token that is valid for {days} days is of no use; give more than 0")
        token = PREFIX + secrets.token_urlsafe(32)
        with self._alone():
            entries = dict(self.entries())
            # A device that was taken out leaves its number to the next one: a box is replaced under a new name.
            taken = {entry.device for entry in entries.values() if not entry.revoked and entry.name != name}
            own = [entries[name].device] if name in entries else []
            number = next(number for number in (*own, *range(len(taken) + 1)) if number not in taken)
            entries[name] = Entry(name, number, digest(token), time.time() + days * DAY)
            self._write(entries)
        return token

    def revoke(self, name: str) -> None:
        """Take a device's token back; a running server refuses it from its next request on.

        Raises:
            ServeError: there is no such device, or the roster cannot be written.
        """
        with self._alone():
            entries = dict(self.entries())
            if name not in entries:
                known = ", ".join(sorted(entries)) or "none"
                raise ServeError(f"no device {name!r} in {self.path}; enrolled: {known}")
            entries[name] = replace(entries[name], revoked=True)
            self._write(entries)

    def device_of(self, token: str, now: float) -> int:
        """Return the number of the device a token belongs to.

        Raises:
            Refused: 401 for an unknown token; 403 for one that was revoked or has expired.
        """
        wanted = digest(token)
        try:
            entries = self.entries()
        except ServeError:  # half-written by an editor, perhaps
            if not self._entries:
                raise
            entries = self._entries
        for entry in entries.values():
            if secrets.compare_digest(entry.sha256, wanted):
                if entry.revoked:
                    raise Refused(403, f"the token of {entry.name} was revoked; enrol the device again")
                if now >= entry.expires:
                    raise Refused(403, f"the token of {entry.name} has expired; enrol the device again")
                return entry.device
        raise Refused(401, "the token is not in the roster; enrol the device")

    def _alone(self) -> AbstractContextManager[None]:
        busy = f"roster {self.path} is being changed by another process; try again"
        return alone(self.path, busy, patience=PATIENCE_S, error=ServeError)

    def _write(self, entries: dict[str, Entry]) -> None:
        rows = [asdict(entry) for entry in sorted(entries.values(), key=lambda entry: entry.device)]
        with writing(f"roster {self.path}", "give another path", ServeError):
            replace_file(self.path, (json.dumps({"devices": rows}, indent=2) + "\n").encode(), mode=0o600)
        self._stamp = None


def digest(token: str) -> str:
    """Return the hexadecimal SHA-256 of a token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
