"""The revocation lists of the devices' authorities, in one PEM file that is read again whenever it has changed.

A list that cannot be used does not replace the one in force, and one that is out of date is no list: then no device is
served until there is a new one.
"""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request

from sflam.errors import Refused, ServeError
from sflam.serve.event_log import EventLog
from sflam.serve.peer_certificate import shown_by

LIST = re.compile(rb"-----BEGIN X509 CRL-----[^-]+-----END X509 CRL-----")
FIX = "make a new one, by sflam certs --revoke or your authority's own tool"


@dataclass(frozen=True)
class Revoked:
    """What is in a file of lists.

    Attributes:
        ends: Unix time at which the first of the lists is out of date.
        issuers: names of the authorities that have one, DER.
        serials: issuer and number of every certificate that was revoked -> Unix time of that.
    """

    ends: float
    issuers: frozenset[bytes]
    serials: dict[tuple[bytes, int], float]


class RevocationList:
    """Which certificates are of no use any more.

    Args:
        path: PEM file of one list or several.
        ca: PEM file of the authorities that may sign them, those of ``--client-ca``.
        notify: shows a line to the user of the server.
        event_log: a line for each time the file is read.
        clock: Unix time, s.

    Raises:
        ServeError: the file cannot be read, holds no list, one that is out of date or partial, or one that none of the
            authorities signed.
    """

    def __init__(
        self,
        path: Path,
        ca: Path,
        notify: Callable[[str], None] = lambda line: None,
        event_log: EventLog | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path, self.ca, self.notify, self.clock = path, ca, notify, clock
        self.event_log = event_log or EventLog()
        self._stamp = self._found()
        self.revoked = read_lists(path, ca, clock())

    def look(self, request: Request) -> None:
        """Look at the certificate of a request.

        Raises:
            Refused: 403 for one that was revoked, or of an authority without a list; 503 where a list is out of date.
        """
        self._follow()
        found, now = shown_by(request), self.clock()
        if now >= self.revoked.ends:
            raise Refused(
                503,
                f"the revocation list of this server ended on {_day(self.revoked.ends)}; its operator must renew it",
                5.0,
            )
        if found is None:
            raise Refused(403, "this server asks for a device certificate, and this connection shows none")
        if found.issuer not in self.revoked.issuers:
            raise Refused(
                403, "the authority of this device's certificate has no revocation list at this server"
            )
        at = self.revoked.serials.get((found.issuer, found.serial))
        if at is not None:
            raise Refused(
                403,
                f"the certificate of this device (number {found.serial:x}) was revoked on {_day(at)}; ask the operator "
                "of the server for a new one",
            )

    def _found(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _follow(self) -> None:
        """Read the file again where it has changed."""
        stamp = self._found()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self.revoked = read_lists(self.path, self.ca, self.clock())
        except ServeError as error:
            self.event_log("revocations_refused", reason=str(error)[:300])
            self.notify(f"{error}; the list read before stays in force, until {_day(self.revoked.ends)}")
            return
        count = len(self.revoked.serials)
        self.event_log("revocations", revoked=count, ends=round(self.revoked.ends))
        self.notify(
            f"{self.path} was read again: {count} certificates are revoked, until {_day(self.revoked.ends)}"
        )


def read_lists(path: Path, ca: Path, now: float) -> Revoked:
    """Return what is in a file of revocation lists; raises ServeError as :class:`RevocationList` does."""
    from cryptography import x509

    try:
        bodies = LIST.findall(path.read_bytes())
        lists = [x509.load_pem_x509_crl(body) for body in bodies]
        authorities = x509.load_pem_x509_certificates(ca.read_bytes())
        signed = [
            any(one.subject == made.issuer and _signed(made, one) for one in authorities) for made in lists
        ]
        critical = [any(extension.critical for extension in made.extensions) for made in lists]
    except OSError as error:
        raise ServeError(
            f"revocation list {path} cannot be read ({error.strerror or error}); {FIX}"
        ) from error
    except ValueError as error:
        raise ServeError(f"revocation list {path} is damaged ({error}); {FIX}") from error
    if not lists:
        raise ServeError(f"{path} holds no revocation list (PEM, X509 CRL); {FIX}")
    if not all(signed):
        raise ServeError(f"revocation list {path} is signed by no authority of {ca} (--client-ca); {FIX}")
    if any(critical):
        raise ServeError(f"revocation list {path} is a part of a list alone; give the whole one")
    for made in lists:
        first, last = made.last_update_utc, made.next_update_utc
        if last is None:
            raise ServeError(f"revocation list {path} names no end (nextUpdate); {FIX}")
        begins, ends = first.timestamp(), last.timestamp()
        if not begins <= now < ends:
            raise ServeError(
                f"revocation list {path} is good from {_day(begins)} to {_day(ends)}, and now it is {_day(now)}; "
                f"{FIX}, or set this machine's clock"
            )
    return Revoked(
        ends=min(made.next_update_utc.timestamp() for made in lists if made.next_update_utc),
        issuers=frozenset(made.issuer.public_bytes() for made in lists),
        serials={
            (made.issuer.public_bytes(), one.serial_number): one.revocation_date_utc.timestamp()
            for made in lists
            for one in made
        },
    )


def _signed(made: Any, authority: Any) -> bool:
    try:
        return bool(made.is_signature_valid(authority.public_key()))
    except (TypeError, ValueError):  # a key of another kind
        return False


def _day(unix: float) -> str:
    return f"{datetime.datetime.fromtimestamp(unix, datetime.UTC):%Y-%m-%d %H:%M} UTC"
