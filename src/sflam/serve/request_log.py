"""Every request has a number: in its answer, in the log, and in what a device shows of a refusal.

Beside the number an answer has whether the device's token is to be renewed.
"""

from __future__ import annotations

import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sflam.link.https_client import REQUEST
from sflam.link.own_token import DUE, HEADER
from sflam.serve.event_log import EventLog

QUIET = ("/", "/events", "/healthz", "/readyz", "/metrics")
"""Paths that are asked all the time, and say nothing of a device."""


class RequestLog:
    """Numbers requests, and logs those that were answered.

    Args:
        app: answers them.
        log: where they are written.
    """

    def __init__(self, app: ASGIApp, log: EventLog) -> None:
        self.app, self.log = app, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        number, began, status = secrets.token_hex(6), time.monotonic(), 0
        state = scope.setdefault("state", {})
        state["request"] = number

        async def numbered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                more = [(REQUEST.lower().encode(), number.encode())]
                if state.get("token_due"):
                    more.append((HEADER.lower().encode(), DUE.encode()))
                message["headers"] = [*message["headers"], *more]
            await send(message)

        try:
            await self.app(scope, receive, numbered)
        finally:
            device = state.get("device")
            # Refusals are events; those of strangers are not written twice, as anybody can make them.
            if scope["path"] not in QUIET and (device is not None or 0 < status < 400):
                self.log.request(
                    request=number,
                    method=scope["method"],
                    path=scope["path"][:100],
                    status=status,
                    device=device,
                    seconds=round(time.monotonic() - began, 4),
                )
