"""The routes: authenticate on the headers, bound before reading, call the session, give a status code.

docs/reference/protocol.md describes every exchange. Nothing here computes, and nothing here imports torch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Future
from importlib.metadata import version
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from sflam.errors import Refused
from sflam.files import from_json
from sflam.link.contract import PROTOCOL
from sflam.link.device_report import HEADER, report_from
from sflam.serve.admission import Connection
from sflam.serve.handover import delivered_size, hand_over, reported_loss
from sflam.serve.ingress import Ingress, announced
from sflam.serve.job_metrics import job_metrics
from sflam.serve.job_routes import job_routes
from sflam.serve.live_page import PAGE_HEADERS, ProgressBoard, page
from sflam.serve.live_stream import LiveStreams
from sflam.serve.probes import LinkProbe
from sflam.serve.request_log import RequestLog
from sflam.serve.session import Phase
from sflam.serve.step_routes import AT, place, step_routes
from sflam.sizes import COUNT_LIMIT

HELLO_LIMIT = 4096


def application(
    ingress: Ingress, board: ProgressBoard | None = None, more: Sequence[Route] = ()
) -> Starlette:
    """Return the ASGI application.

    Args:
        ingress: what the routes need.
        board: what the live page shows of the rounds done.
        more: routes beside these.
    """
    shown = board or ProgressBoard()
    waiting: list[tuple[Future[None], asyncio.Future[None]]] = []

    async def hello(request: Request) -> Response:
        device = ingress.device(request)
        size = ingress.size(request, {min(max(1, announced(request) or 0), HELLO_LIMIT)})
        try:
            found = from_json(await ingress.read(request, size))
            samples, protocol = found["samples"], found.get("protocol", PROTOCOL)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Refused(422, 'send the number of samples: {"samples": 120}') from None
        if protocol != PROTOCOL:
            raise Refused(
                403,
                f"the device (sflam {str(found.get('version', 'of another kind'))[:30]}) speaks protocol "
                f"{str(protocol)[:10]}, this server (sflam {version('sflam')}) {PROTOCOL}; use the same version of "
                "sflam on both sides",
            )
        if type(samples) is not int or not 1 <= samples < COUNT_LIMIT:
            raise Refused(422, f"samples must be a whole number in 1..{COUNT_LIMIT - 1}")
        if 0 < (most := ingress.contracts[device].most_samples) < samples:
            raise Refused(
                422,
                f"device {device} announces {samples} samples, and fleet.most_samples is {most}: what a device counts "
                "hangs on it; give it fewer, or let the server's owner raise the limit",
            )
        with ingress.dispatch.locked() as session:
            new = device not in session.samples
            session.hello(device, samples, ingress.dispatch.clock())
            ingress.dispatch.moving.discard(device)
            if ingress.sums is not None:
                ingress.sums.back(device)
            able = ingress.dispatch.probes.able
            (able.add if found.get("probe") is True else able.discard)(device)
        ingress.event_log("joined" if new else "back", device=device, samples=samples)
        steps = ingress.contracts[device].steps(samples)
        return JSONResponse({"device": device, "steps": steps} | ingress.named(device))

    async def where(request: Request) -> Response:
        device = ingress.device(request)
        after = request.query_params.get("after", "")
        last = int(after) if after.isascii() and after.isdigit() and len(after) < 10 else -1
        # A device that waits is heard of several times within the patience that it has.
        hold = min(ingress.hold, ingress.dispatch.session.patience / 3)
        until = time.monotonic() + (hold if last >= 0 else 0)
        while True:
            with ingress.dispatch.looked() as session:
                news = ingress.dispatch.news
                session.asked(device, last, ingress.dispatch.clock())
                seat, (number, attempt) = session.seats.get(device), session.place_of(device)
                known = device in session.samples
                found: dict[str, Any] = {
                    "phase": session.phase.value,
                    "round": number,
                    "attempt": attempt,
                    "known": known,
                    "seated": seat is not None and not seat.out,
                    "exchange": seat.next if seat else 0,
                    "exchanges": seat.exchanges if seat else 0,
                    "delivered": seat is not None and seat.result is not None,
                    "bits": [ingress.contracts[device].bits, ingress.contracts[device].bits_down],
                }
                found |= ingress.named(device)
                probes = ingress.dispatch.probes
                probe = device in probes.asked
                news_of_probe = probe and device not in probes.notified
                if probe:
                    found["probe"] = probes.asked[device]
                    probes.notified.add(device)
                if device in ingress.dispatch.pacing:
                    found["pace"] = ingress.dispatch.pacing[device]
                if seat and (server := ingress.trunk_of(device)):
                    found["server"] = server
                if seat and ingress.sums is not None:
                    found["sum_width"] = ingress.sums.width
                if seat and seat.shares:
                    found["shares"] = list(seat.shares)
                if session.phase is Phase.DRAINING:
                    raise Refused(503, "the server is stopping; try again later", 5.0)
                now = (
                    session.phase is Phase.ENDED
                    or news_of_probe
                    or device in ingress.dispatch.moving
                    or (session.phase is Phase.OPEN and seat is not None and attempt > last)
                )
                if session.phase is Phase.ENDED:
                    session.informed.add(device)
            left = until - time.monotonic()
            if now or not known or left <= 0:
                return JSONResponse(found)
            if not waiting or waiting[0][0] is not news:
                waiting[:] = [(news, asyncio.wrap_future(news))]  # one for all who wait for the same
            await asyncio.wait([waiting[0][1]], timeout=left)
            ingress.dispatch.heard(device)

    async def probe_down(request: Request) -> Response:
        device = ingress.device(request)
        with ingress.dispatch.looked():
            probes = ingress.dispatch.probes
            body = probes.body[: probes.asked.get(device, 0)]
        if not body:
            raise Refused(409, "no probe is asked of this device; ask for the round")
        return ingress.down(request, body)

    async def probe_up(request: Request) -> Response:
        device = ingress.device(request)
        with ingress.dispatch.looked():
            probes = ingress.dispatch.probes
            wanted = probes.asked.get(device)
        if wanted is None:
            raise Refused(409, "no probe is asked of this device; ask for the round")
        report, began = report_from(request.headers.get(HEADER)), ingress.stats.of(device)
        size = ingress.size(request, {wanted})
        with ingress.bounds.hold(device, size):
            await ingress.read(request, size)
        now = ingress.stats.of(device)
        down = report.receive_s if report else 0.0
        with ingress.dispatch.locked():
            probes.note(
                device, LinkProbe(size, now.upload_s - began.upload_s, now.link_s - began.link_s, down)
            )
        return Response(status_code=204)

    async def download(request: Request) -> Response:
        device, (number, attempt) = ingress.device(request), place(request, "round", "attempt")
        with ingress.dispatch.looked() as session:
            session.seat(device, number, attempt)
            body = ingress.dispatch.downloads[device]
        return ingress.down(request, body, adapters=True)

    async def upload(request: Request) -> Response:
        device, (number, attempt) = ingress.device(request), place(request, "round", "attempt")
        ingress.stats.requested(device)
        contract = ingress.contracts[device]
        if contract.summed:
            raise Refused(
                403, "this run sums adapters under masks; use the same version of sflam on all sides"
            )
        with ingress.dispatch.looked() as session:
            seat = session.check_done(device, number, attempt)
            sent = ingress.dispatch.downloads[device]  # the round may be over before the body is here
        loss, report = reported_loss(request.headers, contract), report_from(request.headers.get(HEADER))
        size = ingress.size(request, {delivered_size(contract)})
        with ingress.bounds.hold(device, size):
            with ingress.dispatch.receiving(seat):
                body = await ingress.read(request, size, trained=True, report=report)
            hand_over(ingress, device, number, attempt, body, loss, sent)
        return Response(status_code=204)

    async def healthz(_: Request) -> Response:
        with ingress.dispatch.looked() as session:
            phase = session.phase
        well = phase is not Phase.DRAINING
        return JSONResponse({"phase": phase.value, "ok": well}, 200 if well else 503)

    async def readyz(_: Request) -> Response:
        with ingress.dispatch.looked() as session:
            found = session.waited_for(ingress.dispatch.clock())
            phase, quorum, present = session.phase, session.quorum, found.present
        return JSONResponse(
            {
                "ready": found.enough,
                "phase": phase.value,
                "quorum": quorum,
                "present": present,
                "waiting": list(found.devices),
                "seconds": found.seconds,
            },
            200 if found.enough else 503,
        )

    async def metrics(request: Request) -> Response:
        connection: Connection | None = getattr(request.state, "connection", None)
        admission = connection.admission if connection else None
        text = job_metrics(ingress, shown, ingress.names(request), admission)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    def live_text() -> str:
        return page(ingress.dispatch, ingress.stats, shown, ingress.orders, ingress.trunk_servers())

    streams = LiveStreams(ingress.dispatch, live_text, failed=lambda: bool(shown.error))

    async def live(_: Request) -> Response:
        return Response(live_text(), media_type="text/html; charset=utf-8", headers=PAGE_HEADERS)

    async def events(_: Request) -> Response:
        return streams.answer(PAGE_HEADERS)

    route = ingress.route
    return Starlette(
        routes=[
            route("/v1/session", "POST", hello),
            *job_routes(ingress),
            route("/v1/round", "GET", where),
            route("/v1/probe", "GET", probe_down),
            route("/v1/probe", "POST", probe_up),
            route(f"{AT}/adapters", "GET", download),
            route(f"{AT}/adapters", "PUT", upload),
            *step_routes(ingress),
            route("/healthz", "GET", healthz),
            route("/readyz", "GET", readyz),
            route("/metrics", "GET", metrics),
            route("/", "GET", live),
            route("/events", "GET", events),
            *more,
        ],
        middleware=[Middleware(RequestLog, log=ingress.event_log)],
    )
