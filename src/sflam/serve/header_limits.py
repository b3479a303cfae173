"""Limits on the head of a request: its size, and the time it may take to arrive.

The web server limits neither for all of its parsers, so this wraps the parser it uses.
"""

from __future__ import annotations

import asyncio
from typing import Any

from sflam.serve.admission import Connection

HEAD_BYTES = 32768
HEAD_SECONDS = 20.0


def guarded(protocol: type[Any], seconds: float = HEAD_SECONDS) -> type[Any]:
    """Return the HTTP protocol class of uvicorn with bounds on the heads of requests.

    A connection that has not sent a whole head ``seconds`` after it was made, or after the last answer plus the
    server's own keep-alive, is closed; so is one that sends more than ``HEAD_BYTES`` before a head is whole.
    """

    class Guarded(protocol):  # type: ignore[misc]  # the base is known when the server is configured
        _head = 0
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            connection: Connection | None = self.app_state.get("connection")
            secured = transport.get_extra_info("ssl_object")
            if connection is not None and secured is not None:
                connection.certificate = secured.getpeercert(binary_form=True) or b""
            super().connection_made(transport)
            self._start()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            connection: Connection | None = self.app_state.get("connection")
            if connection is not None:
                connection.admission.leave(connection)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            before, reading = self.cycle, self._in_body()
            if not reading and self._timer is None:
                self._start()  # the first bytes of the next head on a kept connection
            super().data_received(data)
            if reading or self.cycle is not before:
                self._head = 0
                self._stop()
                return
            self._head += len(data)
            if self._head > HEAD_BYTES:
                self.transport.abort()

        def _in_body(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _start(self) -> None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self.transport.abort)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Guarded
