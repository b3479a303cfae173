"""The routes of operators: what ``sflam admin`` asks, each with a token that no device has."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sflam.errors import Refused
from sflam.files import from_json
from sflam.link.token import OPERATOR
from sflam.serve.ingress import Ingress, announced, bearer
from sflam.serve.operation import RunOperation
from sflam.serve.operators import Operator, Operators

LIMIT = 1 << 16
"""Bytes of a request's JSON."""


def operator_of(ingress: Ingress, operators: Operators, request: Request) -> Operator:
    """Return the operator a request comes from; raises Refused: 401 or 403."""
    token = bearer(request)
    if not token.startswith(OPERATOR):
        raise Refused(401, "this takes an operator's token, and no device's; sflam operator makes one")
    found = operators.operator_of(token, time.time())
    ingress.prove(request, None)
    return found


def names_for(ingress: Ingress, operators: Operators, request: Request) -> dict[int, str] | None:
    """Return number -> name of the devices, for an operator; None for all others.

    Raises:
        Refused: 401 or 403, an operator's token that is of no use.
    """
    if not request.headers.get("authorization", "").partition(" ")[2].strip().startswith(OPERATOR):
        return None
    operator_of(ingress, operators, request)
    entries = ingress.roster.known().values()
    return {entry.device: entry.name for entry in entries if not (entry.revoked or entry.pending)}


def operator_routes(ingress: Ingress, operators: Operators, operation: RunOperation) -> list[Route]:
    """Return the routes; from then on the ingress knows the names of devices that operators are shown."""
    ingress.names = partial(names_for, ingress, operators)

    async def seen(request: Request) -> Response:
        operator_of(ingress, operators, request)
        return JSONResponse(await run_in_threadpool(operation.seen))

    async def act(request: Request) -> Response:
        operator = operator_of(ingress, operators, request)
        name = request.path_params["act"]
        if operator.watches:
            raise Refused(403, f"the token of {operator.name} is for watching alone; it cannot {name}")
        size = ingress.size(request, {min(max(2, announced(request) or 0), LIMIT)})
        try:
            found = from_json(await ingress.read_small(request, size))
            call = _call(operation, name, operator.name, found)
        except (ValueError, TypeError, KeyError):
            raise Refused(
                422,
                'send {"names": ["pi"]}, with "blocks": 1 for a cut or "server": 1 for a server, {"seconds": 60} or {}',
            ) from None
        done = await run_in_threadpool(call)
        return JSONResponse({"act": name, "done": done})

    return [
        ingress.route("/v1/admin", "GET", seen),
        ingress.route("/v1/admin/{act}", "POST", act),
    ]


def _call(operation: RunOperation, name: str, by: str, found: dict[str, Any]) -> Callable[[], str]:
    """Return what an act does; raises Refused, 404, for none that there is, KeyError, TypeError or ValueError."""
    plain = {"pause": operation.pause, "resume": operation.resume, "close": operation.close}
    named = {
        "approve": operation.approve,
        "drain": operation.drain,
        "undrain": operation.undrain,
        "kick": operation.kick,
        "revoke": operation.revoke,
        "unbind": operation.unbind,
    }
    if name in plain:
        return lambda: plain[name](by)
    if name == "deadline":
        seconds = found["seconds"]
        return lambda: operation.deadline(by, seconds)
    given = {"cut": ("blocks", operation.cut), "server": ("server", operation.server)}
    if name not in named and name not in given:
        raise Refused(
            404, f"no such act; there are {', '.join(sorted([*plain, *named, *given, 'deadline']))}"
        )
    names = found["names"]
    if not (isinstance(names, list) and names and all(isinstance(one, str) for one in names)):
        raise ValueError(json.dumps(names)[:60])
    each = list(dict.fromkeys(names))
    if name in given:
        key, order = given[name]
        what = found[key]
        return lambda: order(by, each, what)
    return lambda: named[name](by, each)
