"""Devices' tokens are renewed over their own connection: the device makes the next one, the server gets its hash alone.

Both are good until the next one was used once, and what is good is on disk before it is answered: where the device or
the server dies in between, the device has a token that the server takes.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sflam.errors import Refused
from sflam.files import from_json
from sflam.link.own_token import HEADER, PATH, RENEWS
from sflam.serve.event_log import EventLog
from sflam.serve.ingress import Ingress, announced, bearer
from sflam.serve.peers import WrongTokens
from sflam.serve.roster_entry import Entry
from sflam.serve.self_enrolment import HASH
from sflam.serve.token_file import digest

LIMIT = 1024
"""Bytes of a request."""
BURST, RATE = 5, 1 / 60
"""Requests of one device at once, and a second."""


class TokenRenewal:
    """What is done with a device's token beside asking whose it is; from then on the ingress has it done.

    Args:
        ingress: what routes need.
        days: that a renewed token is good for; None asks for none, and takes those that were given before.
        event_log: a line for every token that was renewed, and for its first use.
        clock: Unix time, s; the ingress's by default.
    """

    def __init__(
        self,
        ingress: Ingress,
        days: float | None,
        event_log: EventLog,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.ingress, self.days, self.event_log = ingress, days, event_log
        self.clock = clock or ingress.clock
        self.able: dict[str, bool] = {}
        """Name -> whether the device renews its token, of those that came since the server was started."""
        self._asked = WrongTokens(BURST, RATE)
        ingress.shown.append(self.shown)

    def routes(self) -> list[Route]:
        """Return the route; none where no token is renewed."""
        return [] if self.days is None else [self.ingress.route(PATH, "POST", self._renew)]

    def shown(self, request: Request, entry: Entry, token: str) -> None:
        """A device has shown a token that is good.

        Raises:
            ServeError: it is the next one, and the roster cannot be written.
        """
        sha256 = digest(token)
        if entry.is_next(sha256):
            entry = self.ingress.roster.take(entry.name, sha256) or entry
            self.event_log("token_taken", name=entry.name, device=entry.device)
        if self.days is not None:
            self.able[entry.name] = request.headers.get(HEADER) == RENEWS
            request.state.token_due = self.clock() >= entry.due(self.days)

    async def _renew(self, request: Request) -> Response:
        ingress, roster, days = self.ingress, self.ingress.roster, self.days
        assert days is not None, "there is no route without"
        ingress.device(request)
        token, now = bearer(request), self.clock()
        entry = roster.entry_of(token, now)
        if not self._asked.admit(entry.name):
            raise Refused(429, f"{entry.name} renews its token too often; try again later", 5.0)
        size = ingress.size(request, {min(max(2, announced(request) or 0), LIMIT)})
        try:
            sha256 = from_json(await ingress.read_small(request, size))["sha256"]
            if not HASH.fullmatch(sha256):
                raise ValueError(sha256)
        except (ValueError, KeyError, TypeError):
            raise Refused(422, 'send the hash of the next token: {"sha256": "..."}, 64 hex digits') from None
        before, after = await run_in_threadpool(roster.renew, entry.name, digest(token), sha256, days, now)
        if before != after:
            self.event_log(
                "token_renewed", name=entry.name, device=entry.device, ends=round(after.next_expires)
            )
        return JSONResponse({"ends": after.next_expires})
