"""The routes of trunk servers at their coordinator, each taken by a token that no device has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from sflam.errors import Refused, ServeError
from sflam.files import from_json
from sflam.link.address import server_address
from sflam.link.contract import PROTOCOL
from sflam.link.token import TRUNK
from sflam.link.trunk_way import LONGEST_CERTIFICATE, LONGEST_TEXT
from sflam.serve.ingress import OCTETS, Ingress, Pieces, announced, bearer
from sflam.serve.step_routes import place
from sflam.serve.trunks.coordinator_link import INSTANCE
from sflam.serve.trunks.hosted_trunks import HostedTrunks
from sflam.serve.trunks.trunk_hosts import TrunkHost
from sflam.serve.trunks.trunk_order import GATHER, OPEN, report_of
from sflam.serve.trunks.trunk_roster import TrunkEntry, TrunkRoster

LIMIT = 1 << 24
"""Bytes of a request's JSON."""
LOOK = 0.03
"""Seconds after which a held answer is looked at again."""


def trunk_routes(
    ingress: Ingress, roster: TrunkRoster, hosted: HostedTrunks, job: dict[str, Any], files: dict[str, Path]
) -> list[Route]:
    """Return the routes.

    Args:
        ingress: what all routes need.
        roster: who may come.
        hosted: the trunks.
        job: what a trunk server must know to take part.
        files: what it downloads, name -> path.
    """
    hosts, dispatch = hosted.hosts, ingress.dispatch
    hold = min(1.0, hosts.silence / 4)
    at = "/v1/trunk/rounds/{round}/{attempt}"

    def enrolled(request: Request) -> TrunkEntry:
        token = bearer(request)
        if not token.startswith(TRUNK):
            raise Refused(
                401, "this takes a trunk server's token, and no device's; sflam enrol --trunk makes one"
            )
        entry = roster.server_of(token, time.time())
        ingress.prove(request, None)
        return entry

    def host_of(request: Request) -> TrunkHost:
        with dispatch.looked():
            host = hosts.of(enrolled(request), request.headers.get(INSTANCE, ""))
        if host is None:
            raise Refused(409, "the coordinator does not know this trunk server; let it come again")
        return host

    async def sent(request: Request) -> Any:
        size = ingress.size(request, {min(max(2, announced(request) or 0), LIMIT)})
        body = await ingress.read_small(request, size)
        try:
            return from_json(body)
        except (ValueError, RecursionError):
            raise Refused(422, "send JSON") from None

    async def hello(request: Request) -> Response:
        entry, found = enrolled(request), await sent(request)
        try:
            protocol, url, pem = found["protocol"], found["url"], found["certificate"]
            instance = request.headers[INSTANCE]
        except (KeyError, TypeError):
            raise Refused(422, "send protocol, url and certificate") from None
        if protocol != PROTOCOL:
            raise Refused(
                403,
                f"trunk server {entry.name} (sflam {str(found.get('version', 'of another kind'))[:30]}) speaks "
                f"protocol {str(protocol)[:10]}, this coordinator {PROTOCOL}; use the same version of sflam on both "
                "sides",
            )
        texts = [(url, LONGEST_TEXT), (pem, LONGEST_CERTIFICATE), (instance, 64)]
        if not all(isinstance(text, str) and text.isascii() and len(text) <= most for text, most in texts):
            raise Refused(422, f"a URL of at most {LONGEST_TEXT} letters, and a certificate, were agreed")
        try:
            server_address(url)
        except ServeError as error:
            raise Refused(422, str(error)) from None
        hosts.come(entry, instance, url, pem)
        return JSONResponse({"server": entry.number, "silence": hosts.silence})

    async def beat(request: Request) -> Response:
        entry, instance = enrolled(request), request.headers.get(INSTANCE, "")
        found = await sent(request)
        until = time.monotonic() + hold
        with dispatch.locked():
            host = hosts.of(entry, instance)
            if host is None:
                return JSONResponse({"known": False, "digest": job["digest"]})
            try:
                serial = int(found["serial"])
                hosts.beat(host, found)
            except (KeyError, TypeError, ValueError, AttributeError):
                raise Refused(422, "send serial, attempt and seats") from None
        while True:
            with dispatch.looked():
                standing = hosts.standing(host)
                stopping = dispatch.stopping
            if stopping:
                raise Refused(503, "the coordinator is stopping; try again later", 1.0)
            if standing["serial"] != serial or time.monotonic() >= until:
                return JSONResponse(standing | {"digest": job["digest"]})
            await asyncio.sleep(LOOK)

    async def described(request: Request) -> Response:
        enrolled(request)
        return JSONResponse(job)

    async def file(request: Request) -> Response:
        enrolled(request)
        path = files.get(request.path_params["name"])
        if path is None:
            raise Refused(404, f"no such file; there are {', '.join(sorted(files))}")
        return FileResponse(path, media_type=OCTETS)

    async def order(request: Request) -> Response:
        host, (number, attempt) = host_of(request), place(request, "round", "attempt")
        with dispatch.looked():
            found = host.asked(number, attempt, OPEN)
        return JSONResponse(found.to_json())

    async def start(request: Request) -> Response:
        host, (number, attempt, server) = host_of(request), place(request, "round", "attempt", "server")
        with dispatch.looked():
            host.asked(number, attempt, OPEN)
            body = bytes(hosted.start(server))
        return Pieces(body, media_type=OCTETS) if body else Response(status_code=204)

    async def ready(request: Request) -> Response:
        host, (number, attempt) = host_of(request), place(request, "round", "attempt")
        with dispatch.locked():
            host.asked(number, attempt, OPEN)
            host.ready = attempt
        return Response(status_code=204)

    async def copy(request: Request) -> Response:
        host, (number, attempt, device) = host_of(request), place(request, "round", "attempt", "device")
        with dispatch.looked():
            found = host.asked(number, attempt, GATHER)
            if device not in found.devices:
                raise Refused(409, f"device {device} is not served there")
        size = ingress.size(request, {hosted.copy_bytes(device)})
        body = await ingress.read_small(request, size)
        with dispatch.locked():
            hosted.keep(host, host.asked(number, attempt, GATHER), device, body)
        return Response(status_code=204)

    async def done(request: Request) -> Response:
        host, (number, attempt) = host_of(request), place(request, "round", "attempt")
        found = await sent(request)
        with dispatch.locked():
            asked = host.asked(number, attempt, GATHER)
            try:
                host.report = report_of(found, asked.devices)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise Refused(422, f"the report of a round lacks {str(error)[:100]}") from None
        return Response(status_code=204)

    route: Callable[..., Route] = ingress.route
    return [
        route("/v1/trunk/hello", "POST", hello),
        route("/v1/trunk/beat", "POST", beat),
        route("/v1/trunk/job", "GET", described),
        route("/v1/trunk/files/{name}", "GET", file),
        route(at, "GET", order),
        route(f"{at}/start/{{server}}", "GET", start),
        route(f"{at}/ready", "POST", ready),
        route(f"{at}/copies/{{device}}", "PUT", copy),
        route(f"{at}/done", "POST", done),
    ]
