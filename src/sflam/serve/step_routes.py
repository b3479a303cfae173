"""The routes of steps: a device's exchange in, checked by what was agreed, and its answer out."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sflam.codec.bodies import decode
from sflam.errors import Refused
from sflam.serve.ingress import Ingress
from sflam.sizes import COUNT_LIMIT

AT = "/v1/rounds/{round}/{attempt}"
"""Where the paths of an opening of a round begin."""


def step_routes(ingress: Ingress) -> list[Route]:
    """Return the routes by which devices make their steps."""

    async def step(request: Request) -> Response:
        device = ingress.device(request)
        ingress.stats.requested(device)
        number, attempt, step = place(request, "round", "attempt", "step")
        leg = {"forward": 0, "backward": 1}.get(request.path_params.get("leg", "forward"), -1)
        contract = ingress.contracts[device]
        if leg < 0 or ("leg" in request.path_params) != (contract.legs == 2):
            raise Refused(
                404, "a step is one exchange with labels on the server, forward and backward without"
            )
        with ingress.dispatch.looked() as session:
            seat = session.seat(device, number, attempt)
            exchange = seat.exchange(step, leg, contract.legs)
            session.check(device, number, attempt, exchange)
            rows = seat.shares[step] if seat.shares else contract.rows(session.samples[device], step)
        tokens = contract.expected_tokens(rows, request.headers.get("sflam-tokens"))
        choices = {False, True} if contract.text else {False}
        sizes = (
            {contract.backward_bytes(tokens)}
            if leg
            else {contract.forward_bytes(rows, tokens, c) for c in choices}
        )
        size = ingress.size(request, sizes, contract.slack(tokens, leg))
        with ingress.bounds.hold(device, size):
            with ingress.dispatch.receiving(seat):
                body = await ingress.read(request, size)
            message = decode(body)
            contract.check(message, number, step, leg, rows, tokens)
            future = ingress.dispatch.submit(device, number, attempt, exchange, body, message)
            answer = asyncio.wrap_future(future)
            answer.add_done_callback(_looked_at)
            try:
                return ingress.down(request, await asyncio.wait_for(asyncio.shield(answer), ingress.hold))
            except TimeoutError:
                raise Refused(503, "it is still being computed; send the same step again", 0.0) from None

    return [
        ingress.route(f"{AT}/steps/{{step}}", "POST", step),
        ingress.route(f"{AT}/steps/{{step}}/{{leg}}", "POST", step),
    ]


def _looked_at(answer: asyncio.Future[bytes]) -> None:
    """Take note of how a step ended that is not waited for any more, as its device went away."""
    if not answer.cancelled():
        answer.exception()


def place(request: Request, *names: str) -> list[int]:
    """Return the numbers in a path; raises Refused, 404, where one is none."""
    found = [request.path_params[name] for name in names]
    if not all(text.isascii() and text.isdigit() and len(text) < 10 for text in found):
        raise Refused(404, f"{' and '.join(names)} in the path must be decimal numbers below {COUNT_LIMIT}")
    return [int(text) for text in found]
