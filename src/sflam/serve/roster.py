"""The roster: which devices may join, by name and number, each by a token of which only the hash is kept."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from sflam.errors import Refused, ServeError
from sflam.link.token import PREFIX
from sflam.serve.token_file import DAY, TokenFile, TokenHolder, digest, expect_days, expect_name


@dataclass(frozen=True)
class Entry(TokenHolder):
    """One device that may join.

    Attributes:
        device: its number in the fleet.
    """

    device: int = -1


class Roster(TokenFile[Entry]):
    """The devices that may join, read again whenever the file has changed.

    Args:
        path: the JSON file; it need not exist yet.
    """

    kind, key, what = Entry, "devices", "roster"
    one, again = "device", "enrol the devices again"

    def enrol(self, name: str, days: float = 30.0) -> str:
        """Let a device in, or give a known one a new token; return the token, which is stored nowhere.

        Raises:
            ServeError: an empty or odd name, no lifetime, or a roster that cannot be written.
        """
        return self.enrol_all([name], days)[name]

    def enrol_all(self, names: Sequence[str], days: float = 30.0) -> dict[str, str]:
        """Let devices in, all or none, as :meth:`enrol` does; return name -> token."""
        for name in names:
            expect_name(name)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ServeError(
                f"{', '.join(twice)} is there more than once; give each device a name of its own"
            )
        expect_days(days)
        tokens = {name: PREFIX + secrets.token_urlsafe(32) for name in names}
        with self._alone():
            entries = dict(self.entries())
            for name, token in tokens.items():
                number = self._number(entries, name)
                entries[name] = Entry(name, digest(token), time.time() + days * DAY, device=number)
            self._write(entries.values())
        return tokens

    def _write(self, entries: Iterable[Entry]) -> None:
        super()._write(sorted(entries, key=lambda entry: entry.device))

    @staticmethod
    def _number(entries: Mapping[str, Entry], name: str) -> int:
        """Return the number of a device: its own, or the first that is free.

        A device that was taken out leaves its number to the next one: a box is replaced under a new name.
        """
        taken = {entry.device for entry in entries.values() if not entry.revoked and entry.name != name}
        own = [entries[name].device] if name in entries else []
        return next(number for number in chain(own, range(len(taken) + 1)) if number not in taken)

    def device_of(self, token: str, now: float) -> int:
        """Return the number of the device a token belongs to.

        Raises:
            Refused: 401 for an unknown token; 403 for one that was revoked or has expired.
        """
        entry = self.holder_of(token)
        if entry is None:
            raise Refused(401, "the token is not in the roster; enrol the device")
        if entry.revoked:
            raise Refused(403, f"the token of {entry.name} was revoked; enrol the device again")
        if now >= entry.expires:
            raise Refused(403, f"the token of {entry.name} has expired; enrol the device again")
        return entry.device
