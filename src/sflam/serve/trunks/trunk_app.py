"""What a trunk server answers: the steps of its devices, and how it is."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from sflam.serve.ingress import Ingress
from sflam.serve.live_page import ProgressBoard
from sflam.serve.metrics import metrics_text
from sflam.serve.request_log import RequestLog
from sflam.serve.session import Phase
from sflam.serve.step_routes import step_routes


def trunk_application(ingress: Ingress) -> Starlette:
    """Return the ASGI application of a trunk server."""

    async def healthz(_: Request) -> Response:
        with ingress.dispatch.looked() as session:
            phase = session.phase
        well = phase is not Phase.DRAINING
        return JSONResponse({"phase": phase.value, "ok": well}, 200 if well else 503)

    async def metrics(_: Request) -> Response:
        board, orders = ProgressBoard(), ingress.orders
        text = metrics_text(ingress.dispatch, ingress.counts, ingress.bounds.bytes, board, orders)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    return Starlette(
        routes=[
            *step_routes(ingress),
            ingress.route("/healthz", "GET", healthz),
            ingress.route("/metrics", "GET", metrics),
        ],
        middleware=[Middleware(RequestLog, log=ingress.event_log)],
    )
