"""The roster: which devices may join, by name and number, each by a token of which only the hash is kept.

The operator enrols them, or they enrol themselves by a join secret.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from sflam.errors import Refused, ServeError
from sflam.link.token import PREFIX
from sflam.serve.roster_entry import Entry
from sflam.serve.token_file import DAY, TokenFile, digest, expect_days, expect_name

AGAIN = 3600.0
"""Seconds after which a token that was never used may make room for another: its device has lost it."""


class Roster(TokenFile[Entry]):
    """The devices that may join, read again whenever the file has changed.

    Args:
        path: the JSON file; it need not exist yet.
    """

    kind, key, what = Entry, "devices", "roster"
    one, again = "device", "enrol the devices again"

    def enrol(self, name: str, days: float = 30.0, certificate: str = "") -> str:
        """Let a device in, or give a known one a new token; return the token, which is stored nowhere.

        Args:
            name: of the device.
            days: until the token expires.
            certificate: hexadecimal SHA-256 of the public key that it is bound to; "" for that of its first use.

        Raises:
            ServeError: an empty or odd name, no lifetime, or a roster that cannot be written.
        """
        return self.enrol_all([name], days, certificate)[name]

    def enrol_all(self, names: Sequence[str], days: float = 30.0, certificate: str = "") -> dict[str, str]:
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
            entries, now = dict(self.entries()), time.time()
            for name, token in tokens.items():
                number = self._number(entries, name)
                entries[name] = Entry(
                    name, digest(token), now + days * DAY, device=number, issued=now, certificate=certificate
                )
            self._write(entries.values())
        return tokens

    def let_in(
        self, name: str, sha256: str, *, places: int, pending: bool, days: float = 30.0
    ) -> tuple[Entry | None, Entry]:
        """Enrol a device that has made its token itself, or renew it; return its entry before and after.

        Args:
            name: its name.
            sha256: of its token.
            places: devices there may be, and so many more that wait for approval.
            pending: whether it waits for approval.
            days: until the token expires.

        Raises:
            Refused: 409 for a name or token of another device, and where all places are taken; 403 for a revoked one.
        """
        with self._alone():
            entries, now = dict(self.entries()), time.time()
            before = entries.get(name)
            if other := self._another(entries, name, sha256):
                raise Refused(
                    409, f"this device is enrolled as {other}; give it that --name, or another --folder"
                )
            if before is not None:
                if not before.has(sha256):
                    raise Refused(409, f"the name {name} is another device's; choose another --name")
                if before.revoked:
                    raise Refused(403, f"{name} was revoked; ask the operator of the server")
                if before.expires > now + days * DAY / 2 and before.pending <= pending:
                    return before, before
            made = Entry(name, sha256, now + days * DAY, pending=pending, issued=now)
            if before is not None and not before.pending:
                entries[name] = replace(before.alone(), sha256=sha256, expires=made.expires, issued=now)
            elif not pending:
                entries[name] = replace(made, device=self._place(entries, name, places))
            else:
                entries[name] = made
                if sum(entry.pending and not entry.revoked for entry in entries.values()) > places:
                    raise Refused(
                        409, f"{places} devices wait for approval already; ask the operator of the server"
                    )
            self._write(entries.values())
            return before, entries[name]

    def renew(self, name: str, shown: str, sha256: str, days: float, now: float) -> tuple[Entry, Entry]:
        """Let a device's next token be good as well, from now until it takes the place of the one before.

        Args:
            name: of the device.
            shown: hash of the token that it comes with.
            sha256: of the next one, which the device has made itself.
            days: that the next one is good for.
            now: Unix time.

        Returns:
            Its entry before and after; both are the same where the server has that hash already.

        Raises:
            Refused: 403 for a device that was revoked; 409 for a token that is not due, or that was replaced already,
                for another next one within an hour, and for one that is in use.
        """
        with self._alone():
            entries = dict(self.entries())
            before = entries.get(name)
            if before is None or before.revoked:
                raise Refused(403, f"the token of {name} was revoked; enrol the device again")
            if before.is_next(sha256):
                return before, before
            if self._another(entries, "", sha256):
                raise Refused(409, "that token is in use; make another")
            if not before.has(shown):
                raise Refused(409, f"{name} has another token by now")
            if now < (due := before.due(days)):
                raise Refused(
                    409, f"the token of {name} is to be renewed in {due - now:.0f} s, and not before"
                )
            if before.next_sha256 and now < before.next_issued + AGAIN:
                raise Refused(
                    409,
                    f"{name} was given another token {now - before.next_issued:.0f} s ago; use that, or ask again "
                    f"after {AGAIN:.0f} s",
                )
            entries[name] = replace(
                before, next_sha256=sha256, next_issued=now, next_expires=now + days * DAY
            )
            self._write(entries.values())
            return before, entries[name]

    def take(self, name: str, sha256: str) -> Entry | None:
        """Let the next token of a device take the place of the one before; return its entry, None where it has already.

        Raises:
            ServeError: the file is being changed just now, or cannot be written.
        """
        with self._alone(patience=0.0):
            entries = dict(self.entries())
            if name not in entries or not entries[name].is_next(sha256):
                return None
            entries[name] = entries[name].taken()
            self._write(entries.values())
            return entries[name]

    def bind(self, name: str, certificate: str) -> Entry:
        """Bind the tokens of a device to a certificate, unless they are; return its entry.

        Args:
            name: of the device.
            certificate: hexadecimal SHA-256 of its public key.

        Raises:
            Refused: 403, the device was taken out.
            ServeError: the file is being changed just now, or cannot be written.
        """
        with self._alone(patience=0.0):
            entries = dict(self.entries())
            if name not in entries:
                raise Refused(403, f"the token of {name} was revoked; enrol the device again")
            if not entries[name].certificate:
                entries[name] = replace(entries[name], certificate=certificate)
                self._write(entries.values())
            return entries[name]

    def unbind(self, names: Sequence[str]) -> None:
        """Let the tokens of devices be bound anew, each to the certificate that it comes with next."""
        with self._alone():
            entries = dict(self.entries())
            for name in names:
                entries[name] = replace(entries[name], certificate="")
            self._write(entries.values())

    def approve(self, names: Sequence[str], places: int) -> None:
        """Give devices that wait for approval their places, all or none; those that have one keep it.

        Raises:
            Refused: 409, not so many of the ``places`` are left.
        """
        with self._alone():
            entries = dict(self.entries())
            for name in names:
                if entries[name].pending:
                    number = self._place(entries, name, places)
                    entries[name] = replace(entries[name], device=number, pending=False)
            self._write(entries.values())

    def _place(self, entries: Mapping[str, Entry], name: str, places: int) -> int:
        number = self._number(entries, name)
        if number >= places:
            raise Refused(409, f"all {places} places of the job are taken; revoke a device that is gone")
        return number

    def _write(self, entries: Iterable[Entry]) -> None:
        super()._write(sorted(entries, key=lambda entry: entry.device))

    @staticmethod
    def _number(entries: Mapping[str, Entry], name: str) -> int:
        """Return the number of a device: its own, or the first that is free.

        A device that was taken out leaves its number to the next one: a box is replaced under a new name.
        """
        taken = {entry.device for entry in entries.values() if not entry.revoked and entry.name != name}
        own = [entries[name].device] if name in entries and entries[name].device >= 0 else []
        return next(number for number in chain(own, range(len(taken) + 1)) if number not in taken)

    @staticmethod
    def _another(entries: Mapping[str, Entry], name: str, sha256: str) -> str:
        """Return the name of another device that has a token; "" for none."""
        return next(
            (entry.name for entry in entries.values() if entry.name != name and entry.has(sha256)), ""
        )

    def entry_of(self, token: str, now: float) -> Entry:
        """Return the device that a token belongs to.

        Args:
            token: as it came.
            now: Unix time.

        Raises:
            Refused: 401 for an unknown token; 403 for one that was revoked or has expired, or waits for approval.
        """
        entry = self.holder_of(token)
        if entry is None:
            raise Refused(401, "the token is not in the roster; enrol the device")
        entry.expect_good(digest(token), now)
        return entry

    def device_of(self, token: str, now: float) -> int:
        """Return the number of the device that a token belongs to; raises Refused as :meth:`entry_of` does."""
        return self.entry_of(token, now).device
