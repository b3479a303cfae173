"""Checks of every request before its route: token, size of the body, time it takes, bytes in memory.

A body is bounded before it is read and while it is read. A refused request of a known device is read to its end, and
discarded, so that the device can read the reason; every other refused request loses its connection.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sflam.errors import Refused, ServeError, WireError
from sflam.link.contract import Contract
from sflam.link.device_report import DeviceReport
from sflam.link.job import job_digest
from sflam.link.token import OPERATOR
from sflam.serve.admission import Connection
from sflam.serve.dispatch import Dispatch
from sflam.serve.event_log import EventLog
from sflam.serve.orders import Orders
from sflam.serve.peers import Peers, WrongTokens
from sflam.serve.roster import Roster
from sflam.serve.roster_entry import Entry
from sflam.serve.round_stats import RoundStats
from sflam.serve.trunks.trunk_hosts import TrunkSeen

if TYPE_CHECKING:  # it needs the cryptography library
    from sflam.serve.sums.open_sum import Sums

OCTETS = "application/octet-stream"
SMALL = 1 << 16
"""Bytes of a body without a valid token that are read and discarded; of a longer one the connection is closed."""
OPERATORS = -1
"""Stands for operators where connections are counted by device."""
PIECE = 1 << 16
"""Bytes of an answer that are handed to a socket at once: a slow device costs no copy of its whole answer."""


class Bounds:
    """Bytes in flight; used from one thread only.

    Args:
        total: most bytes of all devices together.
        each: most bytes of one device.

    Attributes:
        together: those that share ``total`` with these, themselves among them; none where no other does.
    """

    def __init__(self, total: int, each: int) -> None:
        self.total, self.each = total, each
        self.held: Counter[int] = Counter()
        self.together: Sequence[Bounds] = ()

    @property
    def bytes(self) -> int:
        """Bytes in flight now."""
        return sum(self.held.values())

    @contextmanager
    def hold(self, device: int, size: int) -> Iterator[None]:
        """Count ``size`` bytes of a device as in flight.

        Raises:
            Refused: 429 above the device's own limit, 503 above that of all.
        """
        if self.held[device] + size > self.each:
            raise Refused(
                429, f"device {device} has bodies of {self.held[device]} bytes in flight; one at a time", 0.2
            )
        flying = sum(one.bytes for one in self.together or (self,))
        if flying + size > self.total:
            raise Refused(503, f"{flying} bytes are in flight, of {self.total}; try again later", 0.5)
        self.held[device] += size
        try:
            yield
        finally:
            self.held[device] -= size


class Pieces(Response):
    """A response whose body is handed over piece by piece, each when the one before has gone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        view = memoryview(self.body)
        for at in range(0, len(view), PIECE):
            piece = bytes(view[at : at + PIECE])
            await send({"type": "http.response.body", "body": piece, "more_body": at + PIECE < len(view)})


@dataclass
class Ingress:
    """What the routes need.

    Attributes:
        dispatch: where requests meet the trunk.
        roster: who may come in.
        contracts: what was agreed with each device; the round's, so it changes between rounds.
        job: device -> what it must know to take part, as JSON.
        files: what devices download, name -> path.
        bounds: bytes of bodies in flight.
        hold: seconds a request waits for its answer before it is answered by 503.
        stall: seconds without a byte after which a body is given up.
        slowest: bytes a second, on average, below which a body is given up.
        counts: what ``/metrics`` reports.
        stats: what the network did in this round.
        event_log: one line per event.
        peers: the proxies whose word on an origin is believed.
        wrong_tokens: how many an address may try.
        pause: seconds that one too many waits for its answer.
        orders: what an operator has ordered.
        admit: returns the device of a token, or raises Refused; the roster does by default.
        trunk_of: a device -> the trunk server of its steps in the open round; None where they are made here.
        sums: the secure sum of the open round; None where what devices trained goes up by itself.
        trunk_servers: returns the trunk servers that came; none where the trunks are here.
        clock: Unix time, s.
        connected: what is done with every request before its route; one that raises Refused refuses it.
        shown: what is done with a request whose token is a device's and good, each with the request, the device's entry
            and the token; one that raises Refused refuses it.
        first: what is added to the numbers of devices where connections are counted: other jobs have devices, too.
        names: a request -> number and name of the devices, where it shows an operator's token; else None.
    """

    dispatch: Dispatch
    roster: Roster
    contracts: Mapping[int, Contract]
    job: Callable[[int], dict[str, Any]]
    files: Mapping[str, Path]
    bounds: Bounds
    hold: float = 20.0
    stall: float = 30.0
    slowest: float = 1000.0
    counts: Counter[str] = field(default_factory=Counter)
    stats: RoundStats = field(default_factory=RoundStats)
    event_log: EventLog = field(default_factory=EventLog)
    _named: dict[int, tuple[int, dict[str, str]]] = field(default_factory=dict)
    _changes: int = 0
    peers: Peers = field(default_factory=Peers)
    wrong_tokens: WrongTokens = field(default_factory=WrongTokens)
    pause: float = 1.0
    orders: Orders = field(default_factory=Orders)
    admit: Callable[[str, float], int] | None = None
    trunk_of: Callable[[int], dict[str, str] | None] = lambda device: None
    sums: Sums | None = None
    trunk_servers: Callable[[], list[TrunkSeen]] = list
    clock: Callable[[], float] = time.time
    connected: list[Callable[[Request], None]] = field(default_factory=list)
    shown: list[Callable[[Request, Entry, str], None]] = field(default_factory=list)
    first: int = 0
    names: Callable[[Request], Mapping[int, str] | None] = lambda request: None

    def route(self, path: str, method: str, handler: Callable[[Request], Awaitable[Response]]) -> Route:
        """Return a route whose refusals are answered as such."""

        async def guarded(request: Request) -> Response:
            try:
                for look in self.connected:
                    look(request)
                return await handler(request)
            except Refused as refused:
                return await self.refuse(request, refused)
            except WireError as error:
                return await self.refuse(request, Refused(422, str(error)))
            except ServeError as error:
                return await self.refuse(request, Refused(503, str(error), 5.0))

        return Route(path, guarded, methods=[method])

    def named(self, device: int) -> dict[str, str]:
        """Return the names of the run and of the job, as a device knows them: it sees when either is another."""
        at, (known, found) = self._changes, self._named.get(device, (-1, {}))
        if known != at:
            described = self.job(device)
            found = {"run": str(described["run"]), "job": job_digest(described)} if "run" in described else {}
            self._named[device] = at, found
        return found

    def job_changed(self) -> None:
        """Name the job anew to every device: what some of them must know of it has changed."""
        self._changes += 1

    def device(self, request: Request) -> int:
        """Return the device a request comes from; raises Refused, 401 or 403."""
        token = bearer(request)
        if token.startswith(OPERATOR):
            raise Refused(401, "this takes a device's token, and no operator's; sflam enrol makes one")
        if self.admit is not None:
            device = self._placed(self.admit(token, self.clock()))
        else:
            entry = self.roster.entry_of(token, self.clock())
            device = self._placed(entry.device)
            for look in self.shown:
                look(request, entry, token)
        request.state.device = device
        self.prove(request, device)
        self.dispatch.heard(device)
        return device

    def _placed(self, device: int) -> int:
        """Return the number of a device that the job has a place for; raises Refused, 403, for another."""
        if device not in self.contracts:
            raise Refused(403, f"device {device} is enrolled, but this job has {len(self.contracts)} devices")
        return device

    def prove(self, request: Request, device: int | None) -> None:
        """Keep the connection of a request, which has shown the valid token of a device, or of an operator."""
        connection: Connection | None = getattr(request.state, "connection", None)
        if connection is not None:
            connection.prove(OPERATORS if device is None else self.first + device)

    def size(self, request: Request, sizes: set[int], slack: int = 0) -> int:
        """Return the Content-Length; raises Refused: 411 without, 413 above, 422 beside what was agreed.

        Args:
            request: whose body it is.
            sizes: the bytes it may have.
            slack: by how many fewer it may have.
        """
        length = announced(request)
        if length is None:
            raise Refused(411, "send the exact Content-Length; bodies in chunks are not accepted")
        if any(most - slack <= length <= most for most in sizes):
            return length
        agreed = " or ".join(f"{most - slack}..{most}" if slack else str(most) for most in sorted(sizes))
        raise Refused(413 if length > max(sizes) else 422, f"a body of {length} bytes; {agreed} were agreed")

    async def read(
        self, request: Request, size: int, *, trained: bool = False, report: DeviceReport | None = None
    ) -> bytearray:
        """Return a body of exactly ``size`` bytes; raises Refused.

        Args:
            request: whose body it is.
            size: bytes.
            trained: whether it is what a device trained.
            report: what came with that.
        """
        device: int = request.state.device
        with self.stats.arriving(device) as arrival:
            buffer = await self._filled(request, size)
            self.counts["bytes_up"] += size
            self.stats.received(arrival, size, trained=trained, report=report)
        return buffer

    async def read_small(self, request: Request, size: int) -> bytes:
        """Return a body that is no device's, of exactly ``size`` bytes; raises Refused."""
        return bytes(await self._filled(request, size))

    async def _filled(self, request: Request, size: int) -> bytearray:
        """Return a buffer of ``size`` bytes when all have come; raises Refused."""
        device: int | None = getattr(request.state, "device", None)
        buffer, at = bytearray(size), 0
        heard, clock = time.monotonic(), asyncio.get_running_loop().time
        end = clock() + self.stall + size / self.slowest
        try:
            async with asyncio.timeout(self.stall) as timer:
                async for chunk in request.stream():
                    if at + len(chunk) > size:
                        raise Refused(413, f"a body of more than the {size} bytes announced")
                    buffer[at : at + len(chunk)] = chunk
                    at += len(chunk)
                    timer.reschedule(min(end, clock() + self.stall))
                    if (
                        device is not None and time.monotonic() - heard > 1
                    ):  # a slow body is a sign of life, too
                        heard = time.monotonic()
                        self.dispatch.heard(device)
        except TimeoutError:
            raise Refused(408, f"{at} of {size} bytes came, and then none in time; send again", 1.0) from None
        except ClientDisconnect:
            raise Refused(400, "the device closed the connection") from None
        if at != size:
            raise Refused(422, f"a body of {at} bytes; {size} were announced")
        return buffer

    def down(self, request: Request, body: bytes, *, adapters: bool = False) -> Response:
        """Answer with a body, perhaps the adapters that a round begins with; with an empty one, by 204."""
        self.counts["bytes_down"] += len(body)
        self.stats.sent(request.state.device, len(body), adapters=adapters)
        return Pieces(body, media_type=OCTETS) if body else Response(status_code=204)

    async def refuse(self, request: Request, refused: Refused) -> Response:
        """Return the answer to a refused request, after what is left of its body where that is little."""
        if refused.status == 401 and not self.wrong_tokens.admit(self.origin(request)):
            await asyncio.sleep(self.pause)
            refused = Refused(429, "too many wrong tokens came from this address; try again later", 1.0)
        self.counts[f"refused_{refused.status}"] += 1
        device: int | None = getattr(request.state, "device", None)
        number: str | None = getattr(request.state, "request", None)
        self.event_log.refused(refused.status, str(refused), device, request.url.path, number)
        # A device that was too slow is not waited for again.
        known = device is not None or refused.status != 429
        over = known and refused.status not in (400, 408) and await self._drained(request, device)
        headers = {} if over else {"Connection": "close"}
        if refused.retry is not None:
            headers["Retry-After"] = f"{refused.retry:g}"
        if refused.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse({"error": str(refused)}, refused.status, headers)

    def origin(self, request: Request) -> str:
        """Return the address that a request comes from; behind a trusted proxy, the one that it names."""
        address = request.client.host if request.client else ""
        return self.peers.origin(address, ",".join(request.headers.getlist("x-forwarded-for")))

    async def _drained(self, request: Request, device: int | None) -> bool:
        """Read and discard the rest of a body; return whether the connection can go on."""
        if request.method == "GET" and "content-length" not in request.headers:
            return "transfer-encoding" not in request.headers
        length = announced(request)
        most = SMALL if device is None else max(SMALL, self.contracts[device].largest())
        if length is not None and length > most:
            return False
        with suppress(
            TimeoutError, ClientDisconnect, RuntimeError
        ):  # a body that was read cannot be read again
            async with asyncio.timeout(1.0 if device is None else 10.0):
                async for chunk in request.stream():
                    most -= len(chunk)
                    if most < 0:
                        return False
            return True
        return bool(getattr(request, "_stream_consumed", False))


def bearer(request: Request) -> str:
    """Return the token of a request; raises Refused, 401, where it has none."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token:
        raise Refused(401, "no token; send Authorization: Bearer TOKEN")
    return token.strip()


def announced(request: Request) -> int | None:
    """Return the Content-Length of a request; None where it has none, or comes in chunks."""
    length = request.headers.get("content-length", "")
    plain = length.isascii() and length.isdigit() and len(length) < 12
    return int(length) if plain and "transfer-encoding" not in request.headers else None
