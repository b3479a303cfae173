"""The live page as it changes: server-sent events, each the page's main part as one line of JSON.

A stream is an answer that does not end: there are ``STREAMS`` at most, one that does not take what it is sent is given
up, and all end when the server stops or the run is over. The page is made once for all who look.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sflam.errors import Refused
from sflam.serve.admission import Connection
from sflam.serve.dispatch import Dispatch
from sflam.serve.session import Phase

STREAMS = 16
EVERY = 1.0
"""Seconds between two looks at the run; an event goes where the page has changed."""
HEARTBEAT = 10.0
"""Seconds without an event after which a comment goes, so that no proxy on the way takes the stream for dead."""
PATIENCE = 10.0
"""Seconds in which a reader takes an event."""


class LiveStreams:
    """The open streams of a page; used from the web server's thread only.

    Args:
        dispatch: whose run it is.
        page: makes the page.
        failed: whether the run goes on no more in this process, although the server does.
        most, every, heartbeat, patience: as ``STREAMS``, ``EVERY``, ``HEARTBEAT`` and ``PATIENCE``.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        page: Callable[[], str],
        *,
        failed: Callable[[], bool] = lambda: False,
        most: int = STREAMS,
        every: float = EVERY,
        heartbeat: float = HEARTBEAT,
        patience: float = PATIENCE,
    ) -> None:
        self.dispatch, self.page, self.most = dispatch, page, most
        self.every, self.heartbeat, self.patience = every, heartbeat, patience
        self.failed = failed
        self.open = 0
        self._event, self._made = b"", -1.0

    def answer(self, headers: dict[str, str]) -> Response:
        """Return a stream; raises Refused, 503, where there are enough."""
        if self.open >= self.most:
            raise Refused(503, f"{self.open} pages look on already; load the page again to see it", 30.0)
        return _Stream(self, headers)

    def event(self, *, anew: bool = False) -> bytes:
        """Return the page's main part as an event, at most as old as the time between two looks; ``anew``, of now."""
        now = time.monotonic()
        if anew or now - self._made >= self.every / 2 or not self._event:
            text = self.page()
            main = text[text.index("<main>") : text.index("</main>") + len("</main>")]
            self._event, self._made = f"data: {json.dumps(main)}\n\n".encode(), now
        return self._event

    def over(self) -> bool:
        """Whether nothing more is to come."""
        return self.dispatch.stopping or self.dispatch.session.phase in (Phase.DRAINING, Phase.ENDED)


class _Stream(Response):
    """One stream, for as long as its reader keeps up."""

    media_type = "text/event-stream"

    def __init__(self, streams: LiveStreams, headers: dict[str, str]) -> None:
        super().__init__(headers=headers | {"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        streams = self.streams
        if streams.open >= streams.most:  # two were asked for at once
            return await Response(status_code=503, headers={"Retry-After": "30"})(scope, receive, send)
        streams.open += 1
        gone = asyncio.ensure_future(_left(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._events(send, gone)
        except TimeoutError:
            # It does not read: the connection is given up, and a page that is alive asks anew.
            connection: Connection | None = scope.get("state", {}).get("connection")
            if connection is not None:
                connection.close()
        finally:
            streams.open -= 1
            gone.cancel()

    async def _events(self, send: Send, gone: asyncio.Future[None]) -> None:
        streams, sent, quiet = self.streams, b"", time.monotonic()
        over = False
        while not (over or gone.done()):
            over = streams.over()
            event = streams.event(anew=over)  # the last one stays on the page
            if event != sent:
                sent, body = event, event
            elif time.monotonic() - quiet >= streams.heartbeat:
                body = b": here\n\n"
            else:
                body = b""
            # Of a server that only stops, browsers ask again.
            if streams.failed() or streams.dispatch.session.phase is Phase.ENDED:
                body += b"event: over\ndata: 1\n\n"
            if body:
                quiet = time.monotonic()
                async with asyncio.timeout(streams.patience):
                    await send({"type": "http.response.body", "body": body, "more_body": True})
            if not over:
                await asyncio.wait([gone], timeout=streams.every)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    """Return when the reader has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
