"""Who may operate a served run: names, each with a token of its own kind, which no device's path takes."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from sflam.errors import Refused
from sflam.link.token import OPERATOR
from sflam.serve.token_file import DAY, TokenFile, TokenHolder, digest, expect_days, expect_name


@dataclass(frozen=True)
class Operator(TokenHolder):
    """One who may operate runs.

    Attributes:
        watches: whether only to look: the devices, and their names in ``/metrics``.
    """

    watches: bool = False


class Operators(TokenFile[Operator]):
    """The operators, read again whenever the file has changed.

    Args:
        path: the JSON file; it need not exist yet.
    """

    kind, key, what = Operator, "operators", "file of operators"
    one, again = "operator", "make the operators' tokens again"

    def add(self, name: str, days: float = 365.0, *, watches: bool = False) -> str:
        """Let an operator in, or give a known one a new token; return the token, which is stored nowhere.

        Raises:
            ServeError: an empty or odd name, no lifetime, or a file that cannot be written.
        """
        expect_name(name, "operator")
        expect_days(days)
        token = OPERATOR + secrets.token_urlsafe(32)
        with self._alone():
            entries = dict(self.entries())
            entries[name] = Operator(name, digest(token), time.time() + days * DAY, watches=watches)
            self._write(entries.values())
        return token

    def operator_of(self, token: str, now: float) -> Operator:
        """Return whose token this is.

        Raises:
            Refused: 401 for an unknown token; 403 for one that was revoked or has expired.
        """
        found = self.holder_of(token)
        if found is None:
            raise Refused(401, "the token is no operator's of this server; sflam operator makes one")
        if found.revoked or now >= found.expires:
            why = "was revoked" if found.revoked else "has expired"
            raise Refused(
                403, f"the operator's token of {found.name} {why}; make a new one with sflam operator"
            )
        return found
