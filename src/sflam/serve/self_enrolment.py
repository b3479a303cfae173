"""Devices that let themselves in: by a join secret, each under a name and with a token that it made itself."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sflam.errors import Refused, ServeError
from sflam.files import from_json
from sflam.link.enrolment import NAME, PATH, SCHEME, read_secret
from sflam.serve.event_log import EventLog
from sflam.serve.ingress import Ingress, announced
from sflam.serve.peers import WrongTokens
from sflam.serve.roster_entry import Entry
from sflam.serve.token_file import digest

LIMIT = 1024
"""Bytes of a request."""
HASH = re.compile(r"[0-9a-f]{64}")


LONGEST_DAYS = 3650.0
"""Days that a renewed token may be good for."""


def problems_of_enrolment(token_days: float | None, *, approve: bool, itself: bool) -> list[str]:
    """Return a line for each option of tokens that cannot be.

    Args:
        token_days: days that a renewed token is good for; None renews none.
        approve: whether an operator has to approve devices that enrol themselves.
        itself: whether devices enrol themselves.
    """
    problems = []
    if approve and not itself:
        problems.append("--approve is for devices that enrol themselves; give --join-secret-file as well")
    if token_days is not None and not 0 < token_days <= LONGEST_DAYS:
        problems.append(f"--token-days is {token_days}; it must be more than 0, and {LONGEST_DAYS:g} at most")
    return problems


class SelfEnrolment:
    """The one request by which devices enrol themselves.

    Args:
        ingress: what routes need.
        secret: file of the join secret, read again at every request: another one is good from then on.
        approve: whether an operator has to approve each device.
        notify: shows a line to the user of the server.
        event_log: one line for each device.
        days: that a token is good for.

    Raises:
        ServeError: the file holds no secret.
    """

    def __init__(
        self,
        ingress: Ingress,
        secret: Path,
        approve: bool,
        notify: Callable[[str], None],
        event_log: EventLog,
        days: float = 30.0,
    ) -> None:
        read_secret(secret)
        self.days = days
        self.ingress, self.secret, self.approve = ingress, secret, approve
        self.notify, self.event_log = notify, event_log
        self.places = len(ingress.contracts)
        # All devices may be behind one address, and ask again and again while they wait for approval.
        self._asked = WrongTokens(2 * self.places + 16, max(1.0, self.places / 5))

    def route(self) -> Route:
        """Return the route."""
        return self.ingress.route(PATH, "POST", self._enrol)

    async def _enrol(self, request: Request) -> Response:
        self._expect_secret(request)
        if not self._asked.admit(self.ingress.origin(request)):
            raise Refused(429, "too many devices enrol from this address; try again later", 5.0)
        size = self.ingress.size(request, {min(max(2, announced(request) or 0), LIMIT)})
        try:
            found = from_json(await self.ingress.read_small(request, size))
            name, sha256 = found["name"], found["sha256"]
            if not (NAME.fullmatch(name) and HASH.fullmatch(sha256)):
                raise ValueError(name)
        except (ValueError, KeyError, TypeError):
            raise Refused(
                422,
                'send {"name": "my-pi", "sha256": "..."}: 1..64 letters, digits, "-", "_" or ".", and 64 hex digits',
            ) from None
        before, entry = await run_in_threadpool(self._entered, name, sha256)
        if before != entry:
            self.event_log("enrolled", name=name, device=entry.device, approved=not entry.pending)
            number = f"is device {entry.device}" if not entry.pending else "waits for approval"
            fix = f": sflam admin SERVER approve {name}" if entry.pending else ""
            self.notify(f"{name} enrolled itself and {number}{fix}")
        return JSONResponse(
            {"name": name, "device": entry.device, "approved": not entry.pending},
            202 if entry.pending else 200,
        )

    def _entered(self, name: str, sha256: str) -> tuple[Entry | None, Entry]:
        return self.ingress.roster.let_in(
            name, sha256, places=self.places, pending=self.approve, days=self.days
        )

    def _expect_secret(self, request: Request) -> None:
        """Raise Refused, 401, where a request does not show the join secret."""
        kind, _, shown = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != SCHEME.lower() or not shown:
            raise Refused(401, f"no join secret; send Authorization: {SCHEME} SECRET")
        try:
            wanted = read_secret(self.secret)
        except ServeError:
            raise Refused(
                503, "the join secret of this server cannot be read; its operator must mend it", 5.0
            ) from None
        if not secrets.compare_digest(digest(shown.strip()), digest(wanted)):
            raise Refused(401, "the join secret is wrong; ask the operator of the server for it")
