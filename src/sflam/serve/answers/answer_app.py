"""The routes of a server that answers predictions: what a device must know, its files, and its messages."""

from __future__ import annotations

import asyncio

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from sflam.codec.bodies import decode
from sflam.codec.messages import StepFrame
from sflam.errors import Refused
from sflam.serve.answers.trunk_half import TrunkHalf
from sflam.serve.ingress import Ingress
from sflam.serve.job_routes import job_routes
from sflam.serve.live_page import ProgressBoard
from sflam.serve.metrics import metrics_text
from sflam.serve.request_log import RequestLog
from sflam.serve.step_routes import place


def answer_application(ingress: Ingress, trunk: TrunkHalf) -> Starlette:
    """Return the ASGI application of a server that answers predictions.

    Args:
        ingress: what the routes need; nothing of its dispatch is used but what it knows of devices.
        trunk: the blocks behind the cut.
    """

    async def predict(request: Request) -> Response:
        device, (number, rows) = ingress.device(request), place(request, "number", "rows")
        contract = ingress.contracts[device]
        if not 1 <= rows <= contract.batch:
            raise Refused(422, f"a message of {rows} rows; send 1..{contract.batch}")
        tokens = contract.expected_tokens(rows, request.headers.get("sflam-tokens"))
        choices = {False, True} if contract.text else {False}
        sizes = {contract.forward_bytes(rows, tokens, lengths) for lengths in choices}
        size = ingress.size(request, sizes, contract.slack(tokens))
        with ingress.bounds.hold(device, size):
            message = decode(await ingress.read(request, size))
            contract.check(message, 0, number, 0, rows, tokens)
            assert isinstance(message, StepFrame)
            answer = await asyncio.to_thread(trunk.answer, message)
        ingress.counts["predicted_rows"] += rows
        return ingress.down(request, answer)

    async def healthz(_: Request) -> Response:
        return JSONResponse({"phase": "answers", "ok": True})

    async def metrics(_: Request) -> Response:
        board, orders = ProgressBoard(), ingress.orders
        text = metrics_text(ingress.dispatch, ingress.counts, ingress.bounds.bytes, board, orders)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    route = ingress.route
    return Starlette(
        routes=[
            *job_routes(ingress),
            route("/v1/predictions/{number}/{rows}", "POST", predict),
            route("/healthz", "GET", healthz),
            route("/metrics", "GET", metrics),
        ],
        middleware=[Middleware(RequestLog, log=ingress.event_log)],
    )
