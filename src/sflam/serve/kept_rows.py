"""``learn.cache = "server"`` served: a device is shown, as a round begins, which of its samples are kept."""

from __future__ import annotations

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sflam.learn.activation_cache import CachedExchange
from sflam.learn.split_fleet import LocalFleet
from sflam.serve.ingress import Ingress
from sflam.serve.step_routes import AT, place


def kept_routes(local: LocalFleet, ingress: Ingress) -> list[Route]:
    """Return the route of the numbers of a device's kept samples, ascending, int32.

    Args:
        local: the job's simulated fleet, whose exchange keeps them.
        ingress: how a device comes in.
    """

    async def kept(request: Request) -> Response:
        device = ingress.device(request)
        ingress.stats.requested(device)
        round, attempt = place(request, "round", "attempt")
        with ingress.dispatch.looked() as session:
            session.seat(device, round, attempt)
            exchange = local.exchange
            assert isinstance(exchange, CachedExchange)
            found = exchange.held(device)
        return ingress.down(request, np.array(found, "<i4").tobytes())

    return [ingress.route(f"{AT}/kept", "GET", kept)]
