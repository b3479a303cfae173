"""Which trunk servers a coordinator lets in, by name and number, each by a token of which only the hash is kept."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from sflam.errors import Refused
from sflam.link.token import TRUNK
from sflam.serve.token_file import DAY, TokenFile, TokenHolder, digest, expect_days, expect_name


@dataclass(frozen=True)
class TrunkEntry(TokenHolder):
    """One trunk server.

    Attributes:
        number: of the server whose devices it serves while it is there, as plans count servers.
    """

    number: int = 0


class TrunkRoster(TokenFile[TrunkEntry]):
    """The trunk servers, read again whenever the file has changed.

    Args:
        path: the JSON file; it need not exist yet.
    """

    kind, key, what = TrunkEntry, "servers", "file of trunk servers"
    one, again = "trunk server", "enrol the trunk servers again"

    def enrol(self, name: str, days: float = 365.0) -> str:
        """Let a trunk server in, or give a known one a new token; return the token, which is stored nowhere.

        Raises:
            ServeError: an empty or odd name, no lifetime, or a file that cannot be written.
        """
        expect_name(name, "trunk server")
        expect_days(days)
        token = TRUNK + secrets.token_urlsafe(32)
        with self._alone():
            entries = dict(self.entries())
            taken = {entry.number for entry in entries.values() if not entry.revoked and entry.name != name}
            own = entries[name].number if name in entries else -1
            number = own if own >= 0 and own not in taken else min(set(range(len(taken) + 1)) - taken)
            entries[name] = TrunkEntry(name, digest(token), time.time() + days * DAY, number=number)
            self._write(sorted(entries.values(), key=lambda entry: entry.number))
        return token

    def server_of(self, token: str, now: float) -> TrunkEntry:
        """Return whose token this is.

        Raises:
            Refused: 401 for an unknown token; 403 for one that was revoked or has expired.
        """
        found = self.holder_of(token)
        if found is None:
            raise Refused(
                401, "the token is no trunk server's of this coordinator; sflam enrol --trunk makes one"
            )
        if found.revoked or now >= found.expires:
            why = "was revoked" if found.revoked else "has expired"
            raise Refused(403, f"the token of trunk server {found.name} {why}; enrol it again")
        return found
