"""A JSON file of names, each with a token of which only the hash is kept; read again whenever it has changed.

A token is 32 random bytes, so its SHA-256 can be stored as it is: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from sflam.errors import ServeError
from sflam.files import from_json, mode_of, replace_file, writing
from sflam.locks import alone

DAY = 86400.0
PATIENCE_S = 30.0
"""How long one who changes the file waits for others who do."""


@dataclass(frozen=True)
class TokenHolder:
    """Who has a token.

    Attributes:
        name: its name.
        sha256: hexadecimal SHA-256 of its token.
        expires: Unix time after which the token is of no use.
        revoked: whether it was revoked.
    """

    name: str
    sha256: str
    expires: float
    revoked: bool = False

    def has(self, sha256: str) -> bool:
        """Return whether this is the hash of its token."""
        return secrets.compare_digest(self.sha256, sha256)


H = TypeVar("H", bound=TokenHolder)


class TokenFile(Generic[H]):
    """Names and the hashes of their tokens.

    Args:
        path: the JSON file; it need not exist yet.
    """

    kind: ClassVar[Callable[..., TokenHolder]]
    key: ClassVar[str]
    """Of the list in the file."""
    what: ClassVar[str]
    """The file, in a message."""
    one: ClassVar[str]
    """Who has a token, in a message."""
    again: ClassVar[str]
    """What to do about a file that is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int] | None = None
        self._entries: dict[str, H] = {}

    def entries(self) -> dict[str, H]:
        """Return those in the file by name.

        Raises:
            ServeError: the file cannot be read, or is of another kind.
        """
        try:
            found = self.path.stat()
            stamp = (found.st_mtime_ns, found.st_ino)
            if stamp != self._stamp:
                rows = from_json(self.path.read_text(encoding="utf-8"))[self.key]
                entries = [type(self).kind(**row) for row in rows]
                self._entries = {entry.name: entry for entry in entries}  # type: ignore[misc]
                self._stamp = stamp
        except (
            FileNotFoundError
        ):  # what was read stays good: a file that is away for a moment revokes nothing
            self._stamp = None
        except OSError as error:
            raise ServeError(
                f"{self.what} {self.path} cannot be read ({error.strerror}); make it readable"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ServeError(f"{self.path} is no roster of {self.key} ({error}); {self.again}") from error
        return self._entries

    def known(self) -> dict[str, H]:
        """Return those in the file or, where it cannot be read just now, those that were read last."""
        with suppress(ServeError):  # half-written by an editor, perhaps
            return self.entries()
        return self._entries

    def revoke(self, name: str) -> None:
        """Take a token back; a running server refuses it from the next request on.

        Raises:
            ServeError: there is no such name, or the file cannot be written.
        """
        with self._alone():
            entries = dict(self.entries())
            if name not in entries:
                known = ", ".join(sorted(entries)) or "none"
                raise ServeError(f"no {self.one} {name!r} in {self.path}; enrolled: {known}")
            entries[name] = replace(entries[name], revoked=True)
            self._write(entries.values())

    def holder_of(self, token: str) -> H | None:
        """Return whose token this is, whether or not it is of use; None for an unknown one."""
        wanted, found = digest(token), None
        entries = self.known() or self.entries()
        for entry in entries.values():
            if entry.has(wanted):
                found = entry
        return found

    def _alone(self, patience: float = PATIENCE_S) -> AbstractContextManager[None]:
        busy = f"{self.what} {self.path} is being changed by another process; try again"
        return alone(self.path, busy, patience=patience, error=ServeError)

    def _write(self, entries: Iterable[H]) -> None:
        rows = [asdict(entry) for entry in entries]
        with writing(f"{self.what} {self.path}", "give another path", ServeError):
            mode = mode_of(self.path, 0o600)
            replace_file(self.path, (json.dumps({self.key: rows}, indent=2) + "\n").encode(), mode=mode)
        self._stamp = None


def digest(token: str) -> str:
    """Return the hexadecimal SHA-256 of a token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def expect_name(name: str, what: str = "device") -> None:
    """Raise ServeError for a name that is empty, long or odd."""
    if not name or len(name) > 64 or not all(letter.isalnum() or letter in "-_." for letter in name):
        raise ServeError(f"{what} name {name!r}: use 1..64 letters, digits, '-', '_' or '.'")


def expect_days(days: float) -> None:
    """Raise ServeError for a lifetime that is none."""
    if not days > 0:
        raise ServeError(f"a token that is valid for {days} days is of no use; give more than 0")
