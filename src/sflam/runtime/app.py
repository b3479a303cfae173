"""The routes: authenticate on the headers, bound before reading, call the session, give a status code.

docs/protocol.md describes every exchange. Nothing here computes, and nothing here imports torch.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from sflam.errors import ServeError, WireError
from sflam.payload import COUNT_LIMIT
from sflam.runtime.bounds import Bounds
from sflam.runtime.credentials import Roster
from sflam.runtime.desk import Desk
from sflam.runtime.page import metrics_text, page
from sflam.runtime.session import Phase, Refused
from sflam.runtime.terms import Terms
from sflam.wire.codec import decode

OCTETS = "application/octet-stream"
HELLO_LIMIT = 4096


@dataclass
class Door:
    """What the routes need.

    Attributes:
        desk: where requests meet the trunk.
        roster: who may come in.
        terms: what was agreed with each device.
        job: device -> what it must know to take part, as JSON.
        files: what devices download, name -> path.
        bounds: bytes of bodies in flight.
        hold: seconds a request waits for its answer before it is asked to come again.
        body: seconds a body may take to arrive.
        counts: what ``/metrics`` tells.
    """

    desk: Desk
    roster: Roster
    terms: Mapping[int, Terms]
    job: Callable[[int], dict[str, Any]]
    files: Mapping[str, Path]
    bounds: Bounds
    hold: float = 20.0
    body: float = 120.0
    counts: Counter[str] = field(default_factory=Counter)

    def device(self, request: Request) -> int:
        """Return the device a request comes from; raises Refused, 401 or 403."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise Refused(401, "no token; send Authorization: Bearer TOKEN")
        device = self.roster.device_of(token.strip(), time.time())
        if device not in self.terms:
            raise Refused(403, f"device {device} is enrolled, but this job has {len(self.terms)} devices")
        with self.desk.locked() as session:
            if device in session.samples:
                session.heard(device, self.desk.clock())
        return device

    def size(self, request: Request, sizes: set[int]) -> int:
        """Return the Content-Length; raises Refused: 411 without, 413 above, 422 beside the agreed ``sizes``."""
        said = request.headers.get("content-length", "")
        if "transfer-encoding" in request.headers or not (
            said.isascii() and said.isdigit() and len(said) < 12
        ):
            raise Refused(411, "say the exact Content-Length; bodies in chunks are not taken")
        if int(said) in sizes:
            return int(said)
        agreed = " or ".join(map(str, sorted(sizes)))
        raise Refused(
            413 if int(said) > max(sizes) else 422, f"a body of {int(said)} bytes; {agreed} were agreed"
        )

    async def read(self, request: Request, size: int) -> bytearray:
        """Return a body of exactly ``size`` bytes; raises Refused."""
        buffer, at = bytearray(size), 0
        try:
            async with asyncio.timeout(self.body):
                async for chunk in request.stream():
                    if at + len(chunk) > size:
                        raise Refused(413, f"a body of more than the {size} bytes announced")
                    buffer[at : at + len(chunk)] = chunk
                    at += len(chunk)
        except TimeoutError:
            raise Refused(408, f"{at} of {size} bytes came within {self.body:g} s; send again", 1.0) from None
        except ClientDisconnect:
            raise Refused(400, "the device hung up") from None
        if at != size:
            raise Refused(422, f"a body of {at} bytes; {size} were announced")
        self.counts["bytes_up"] += size
        return buffer

    def down(self, body: bytes) -> Response:
        """Answer with a body; with an empty one, by 204."""
        self.counts["bytes_down"] += len(body)
        return Response(body, media_type=OCTETS) if body else Response(status_code=204)


def application(door: Door) -> Starlette:
    """Return the ASGI application."""

    async def hello(request: Request) -> Response:
        device = door.device(request)
        said = request.headers.get("content-length", "")
        size = door.size(
            request, {int(said) if said.isdigit() and 1 <= int(said[:9]) <= HELLO_LIMIT else HELLO_LIMIT}
        )
        try:
            found = json.loads(await door.read(request, size))
            samples = found["samples"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Refused(422, 'say how many samples there are: {"samples": 120}') from None
        if type(samples) is not int or not 1 <= samples < COUNT_LIMIT:
            raise Refused(422, f"samples must be a whole number in 1..{COUNT_LIMIT - 1}")
        with door.desk.locked() as session:
            session.hello(device, samples, door.desk.clock())
        return JSONResponse({"device": device, "steps": door.terms[device].steps(samples)})

    async def job(request: Request) -> Response:
        return JSONResponse(door.job(door.device(request)))

    async def file(request: Request) -> Response:
        door.device(request)
        path = door.files.get(request.path_params["name"])
        if path is None:
            raise Refused(404, f"no such file; there are {', '.join(sorted(door.files))}")
        return FileResponse(path, media_type=OCTETS)

    async def where(request: Request) -> Response:
        device = door.device(request)
        after = request.query_params.get("after", "")
        until = time.monotonic() + (door.hold if after.isdigit() else 0)
        while True:
            with door.desk.locked() as session:
                seat = session.seats.get(device)
                known = device in session.samples
                news = session.phase in (Phase.ENDED, Phase.DRAINING) or (
                    session.phase is Phase.OPEN and seat is not None and session.attempt > int(after or -1)
                )
                found = {
                    "phase": session.phase.value,
                    "round": session.round,
                    "attempt": session.attempt,
                    "known": known,
                    "seated": seat is not None and not seat.out,
                    "exchange": seat.next if seat else 0,
                    "exchanges": seat.exchanges if seat else 0,
                    "delivered": seat is not None and seat.result is not None,
                }
                if known:
                    session.heard(device, door.desk.clock())
            if news or not known or time.monotonic() >= until:
                return JSONResponse(found)
            await asyncio.sleep(0.02)

    async def download(request: Request) -> Response:
        device, (number, attempt) = door.device(request), place(request, "round", "attempt")
        with door.desk.locked() as session:
            session.seat(device, number, attempt)
            body = door.desk.downloads[device]
        return door.down(body)

    async def step(request: Request) -> Response:
        device = door.device(request)
        number, attempt, step = place(request, "round", "attempt", "step")
        leg = {"forward": 0, "backward": 1}.get(request.path_params.get("leg", "forward"), -1)
        terms = door.terms[device]
        if leg < 0 or ("leg" in request.path_params) != (terms.legs == 2):
            raise Refused(
                404, "a step is one exchange with labels on the server, forward and backward without"
            )
        exchange = step * terms.legs + leg
        with door.desk.locked() as session:
            session.check(device, number, attempt, exchange)
            samples = session.samples[device]
        rows = terms.rows(samples, step)
        tokens = terms.expected_tokens(rows, request.headers.get("sflam-tokens"))
        choices = {False, True} if terms.text else {False}
        sizes = (
            {terms.backward_bytes(tokens)} if leg else {terms.forward_bytes(rows, tokens, c) for c in choices}
        )
        size = door.size(request, sizes)
        with door.bounds.hold(device, size):
            body = await door.read(request, size)
            terms.check(decode(body), number, step, leg, rows, tokens)
            answer = asyncio.wrap_future(door.desk.submit(device, number, attempt, exchange, body))
            try:
                return door.down(await asyncio.wait_for(asyncio.shield(answer), door.hold))
            except TimeoutError:
                raise Refused(503, "it is still being computed; send the same step again", 0.0) from None

    async def upload(request: Request) -> Response:
        device, (number, attempt) = door.device(request), place(request, "round", "attempt")
        terms = door.terms[device]
        with door.desk.locked() as session:
            seat = session.seat(device, number, attempt)
            if seat.next < seat.exchanges:
                raise Refused(
                    409, f"device {device} is at exchange {seat.next} of {seat.exchanges}; adapters come last"
                )
        loss = door_loss(request, terms)
        size = door.size(request, {terms.adapter_bytes()} if terms.adapters else {0})
        with door.bounds.hold(device, size):
            body = await door.read(request, size)
            message = terms.check_adapters(decode(body), number) if terms.adapters else None
            with door.desk.locked() as session:
                session.deliver(device, number, attempt, (message, loss, size), door.desk.clock())
        return Response(status_code=204)

    async def healthz(_: Request) -> Response:
        with door.desk.locked() as session:
            phase = session.phase
        well = phase is not Phase.DRAINING
        return JSONResponse({"phase": phase.value, "ok": well}, 200 if well else 503)

    async def metrics(_: Request) -> Response:
        return PlainTextResponse(
            metrics_text(door.desk, door.counts, door.bounds.bytes), media_type="text/plain; version=0.0.4"
        )

    async def live(_: Request) -> Response:
        return Response(page(door.desk, door.counts), media_type="text/html; charset=utf-8")

    def route(path: str, method: str, handler: Callable[[Request], Awaitable[Response]]) -> Route:
        async def guarded(request: Request) -> Response:
            try:
                return await handler(request)
            except Refused as refused:
                return refusal(door, refused)
            except WireError as error:
                return refusal(door, Refused(422, str(error)))
            except ServeError as error:
                return refusal(door, Refused(503, str(error), 5.0))

        return Route(path, guarded, methods=[method])

    at = "/v1/rounds/{round}/{attempt}"
    return Starlette(
        routes=[
            route("/v1/session", "POST", hello),
            route("/v1/job", "GET", job),
            route("/v1/files/{name}", "GET", file),
            route("/v1/round", "GET", where),
            route(f"{at}/adapters", "GET", download),
            route(f"{at}/adapters", "PUT", upload),
            route(f"{at}/steps/{{step}}", "POST", step),
            route(f"{at}/steps/{{step}}/{{leg}}", "POST", step),
            route("/healthz", "GET", healthz),
            route("/metrics", "GET", metrics),
            route("/", "GET", live),
        ]
    )


def refusal(door: Door, refused: Refused) -> Response:
    """Return the answer to a refused request; its body was perhaps not read, so the connection ends."""
    door.counts[f"refused_{refused.status}"] += 1
    headers = {"Connection": "close"} | (
        {} if refused.retry is None else {"Retry-After": f"{refused.retry:g}"}
    )
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": str(refused)}, refused.status, headers)


def place(request: Request, *names: str) -> list[int]:
    """Return the numbers in a path; raises Refused, 404, where one is none."""
    found = [request.path_params[name] for name in names]
    if not all(text.isascii() and text.isdigit() and len(text) < 10 for text in found):
        raise Refused(404, f"{' and '.join(names)} in the path must be decimal numbers below {COUNT_LIMIT}")
    return [int(text) for text in found]


def door_loss(request: Request, terms: Terms) -> float:
    """Return the mean loss a device with labels at home says it had in the round; raises Refused, 422."""
    if terms.labels_up:
        return 0.0
    try:
        value = float(request.headers.get("sflam-loss", ""))
        if not 0 <= value < 1e30:
            raise ValueError
        return value
    except ValueError:
        raise Refused(422, "Sflam-Loss must say the mean loss of the round, a number of 0 or more") from None
