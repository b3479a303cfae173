"""The routes of a secure sum: a device's message of a phase in, checked by what was agreed, and its answer out."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sflam.errors import Refused
from sflam.link.device_report import HEADER, report_from
from sflam.secure.bodies import decode_message
from sflam.secure.messages import PHASES
from sflam.serve.dispatch import sealed
from sflam.serve.handover import hand_in, reported_loss
from sflam.serve.ingress import Ingress
from sflam.serve.step_routes import AT, place
from sflam.serve.sums.open_sum import KEYS, KINDS, OpenSum, Sums


def sum_routes(ingress: Ingress, sums: Sums) -> list[Route]:
    """Return the routes by which devices take part in sums."""
    waiting: list[tuple[Future[None], asyncio.Future[None]]] = []

    async def part(request: Request) -> Response:
        device = ingress.device(request)
        ingress.stats.requested(device)
        number, attempt = place(request, "round", "attempt")
        phase: str = request.path_params["phase"]
        if phase not in PHASES:
            raise Refused(404, f"a secure sum has the phases {', '.join(PHASES)}")
        first = phase == KEYS
        with ingress.dispatch.looked() as session:
            one = sums.at(number, attempt)
            size, most = one.size(device, phase), one.agreed(device, phase)[1]
            if first and not one.came(device, phase):
                session.check_done(device, number, attempt)
        # What a device tells of its round comes with its keys, as it would with its adapters.
        loss = reported_loss(request.headers, ingress.contracts[device]) if first else 0.0
        report = report_from(request.headers.get(HEADER)) if first else None
        size = ingress.size(request, {size})
        with ingress.bounds.hold(device, size):
            with one.receiving(device):
                body = await ingress.read(request, size, trained=True, report=report)
            message, seal = decode_message(bytes(body), KINDS[phase], most), sealed(body)
        with ingress.dispatch.locked():
            one.check(device, phase, message, seal)
            if first and not one.came(device, phase):
                hand_in(ingress, device, number, attempt, (None, loss, size), seal)
            one.take(device, phase, message, seal)
        return ingress.down(request, await answered(one, device, phase))

    async def answered(one: OpenSum, device: int, phase: str) -> bytes:
        """Return the answer of a phase once all others came, or had their time."""
        dispatch = ingress.dispatch
        # A device that waits is heard of several times within the patience that it has.
        until = time.monotonic() + min(ingress.hold, dispatch.session.patience / 3)
        while True:
            with dispatch.looked():
                if dispatch.stopping:
                    raise Refused(503, "the server is stopping; try again later", 5.0)
                answer, over = one.answer(device, phase), one.over[phase]
            if answer is not None:
                return answer
            left = until - time.monotonic()
            if left <= 0:
                raise Refused(503, "other devices are waited for; send the same again", 0.0)
            if not waiting or waiting[0][0] is not over:
                waiting[:] = [(over, asyncio.wrap_future(over))]  # one for all who wait for the same
            await asyncio.wait([waiting[0][1]], timeout=left)

    return [ingress.route(f"{AT}/sum/{{phase}}", "POST", part)]
