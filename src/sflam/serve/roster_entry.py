"""One device of the roster, its token, and the one that follows it until the device has used that once."""

from __future__ import annotations

import datetime
import secrets
from dataclasses import dataclass, replace

from sflam.errors import Refused
from sflam.serve.token_file import DAY, TokenHolder

PART = 2 / 3
"""Of a token's life after which it is to be renewed."""


@dataclass(frozen=True)
class Entry(TokenHolder):
    """One device that may join.

    Attributes:
        device: its number in the fleet; -1 where it has none yet.
        pending: whether it enrolled itself and waits for an operator's approval.
        issued: Unix time from which its token was good; 0 in a roster of an older release.
        next_sha256: hexadecimal SHA-256 of the token that follows; "" for none. Both are good until it is used.
        next_issued: Unix time from which that one was good.
        next_expires: Unix time after which that one is of no use.
        certificate: hexadecimal SHA-256 of the public key of the certificate that its tokens are bound to; "" for none.
    """

    device: int = -1
    pending: bool = False
    issued: float = 0.0
    next_sha256: str = ""
    next_issued: float = 0.0
    next_expires: float = 0.0
    certificate: str = ""

    def has(self, sha256: str) -> bool:
        """Return whether this is the hash of its token, or of the one that follows."""
        return super().has(sha256) or self.is_next(sha256)

    def is_next(self, sha256: str) -> bool:
        """Return whether this is the hash of the token that follows."""
        return bool(self.next_sha256) and secrets.compare_digest(self.next_sha256, sha256)

    @property
    def ends(self) -> float:
        """Unix time after which the device has no token of any use."""
        return max(self.expires, self.next_expires if self.next_sha256 else 0.0)

    def due(self, days: float) -> float:
        """Return the Unix time from which its token is to be renewed.

        Args:
            days: that a token is good for, where the roster does not say since when this one was.
        """
        life = self.expires - self.issued if self.issued else days * DAY
        return self.expires - (1 - PART) * life

    def taken(self) -> Entry:
        """Return the entry once the token that follows was used: the one before is of no use any more."""
        return replace(
            self, sha256=self.next_sha256, issued=self.next_issued, expires=self.next_expires
        ).alone()

    def alone(self) -> Entry:
        """Return the entry without a token that follows."""
        return replace(self, next_sha256="", next_issued=0.0, next_expires=0.0)

    def expect_good(self, sha256: str, now: float) -> None:
        """Raise Refused, 403, unless a token of this device is of use at a Unix time."""
        if self.revoked:
            raise Refused(403, f"the token of {self.name} was revoked; enrol the device again")
        follows = self.is_next(sha256)
        issued, expires = (self.next_issued, self.next_expires) if follows else (self.issued, self.expires)
        if now >= expires:
            end = datetime.datetime.fromtimestamp(expires, datetime.UTC)
            limit = f", its limit of {(expires - issued) / DAY:.4g} days" if issued else ""
            raise Refused(
                403,
                f"the token of {self.name} has expired: it ended on {end:%Y-%m-%d %H:%M} UTC{limit}; enrol the device "
                f"again, by sflam enrol {self.name}",
            )
        if self.pending:
            raise Refused(403, f"{self.name} waits for approval: sflam admin SERVER approve {self.name}")
