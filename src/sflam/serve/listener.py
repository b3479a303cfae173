"""Accepting connections: every one is admitted, bounded in time, and given to TLS and HTTP once it has sent a byte.

The web server's own acceptor takes whatever comes and ends with the files of the process; this one stands in for it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import uvicorn

from sflam.serve.admission import Admission, Connection

AT_ONCE = 128
"""Connections accepted in one go, before others are served."""
HANDSHAKE_SECONDS = 10.0
PAUSE = 0.1
"""Seconds after which accepting is tried again where there are no files and no stranger can leave."""
Made = Callable[[Connection], asyncio.Protocol]


class Listener:
    """One listening socket; has the methods that a web server calls at its end.

    Args:
        listening: bound, not yet listening.
        made: returns the protocol of a connection that has sent its first byte.
        admission: who may stay.
        context: of TLS; None for plain HTTP.
        seconds: in which the first byte must come.
    """

    def __init__(
        self, listening: socket.socket, made: Made, admission: Admission, context: Any, seconds: float
    ) -> None:
        self.listening, self.made, self.admission = listening, made, admission
        self.context, self.seconds = context, seconds
        self.loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        listening.setblocking(False)
        listening.listen(2048)
        self.loop.add_reader(listening.fileno(), self._accept)

    def close(self) -> None:
        """Take no more connections, and end those that are no more than begun."""
        if self.listening.fileno() >= 0:
            self.loop.remove_reader(self.listening.fileno())
        for connection in list(self.admission.silent):
            self.admission.leave(connection)
            connection.close()
        for task in list(self._tasks):
            task.cancel()

    async def wait_closed(self) -> None:
        """Return at once: there is nothing to wait for."""

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                made, address = self.listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no more files, or no memory for one
                if not self.admission.relieve():
                    self.loop.remove_reader(self.listening.fileno())
                    self.loop.call_later(PAUSE, self._resume)
                return
            made.setblocking(False)
            self._silent(made, str(address[0]))

    def _resume(self) -> None:
        if self.listening.fileno() >= 0:
            self.loop.add_reader(self.listening.fileno(), self._accept)

    def _silent(self, made: socket.socket, address: str) -> None:
        """Wait for the first byte of a connection."""
        connection = Connection(address, lambda: None, self.admission)
        timer = self.loop.call_later(self.seconds, self._over, connection)

        def heard() -> None:
            timer.cancel()
            self.loop.remove_reader(made.fileno())

        def close() -> None:
            heard()
            made.close()

        def speaks() -> None:
            heard()
            if _is_closed(made):
                self._over(connection)
                return
            task = self.loop.create_task(self._serve(made, connection))

            def end() -> None:
                task.cancel()

            connection.close = end
            self._tasks.add(task)
            task.add_done_callback(partial(self._served, made))
            self.admission.speaks(connection)

        connection.close = close
        self.loop.add_reader(made.fileno(), speaks)
        self.admission.arrive(connection)

    def _over(self, connection: Connection) -> None:
        self.admission.leave(connection)
        connection.close()

    def _served(self, made: socket.socket, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            made.close()

    async def _serve(self, made: socket.socket, connection: Connection) -> None:
        """Hand a connection over to TLS and HTTP."""
        timeouts = {"ssl_handshake_timeout": HANDSHAKE_SECONDS, "ssl_shutdown_timeout": HANDSHAKE_SECONDS}
        try:
            transport, _ = await self.loop.connect_accepted_socket(
                partial(self.made, connection), made, ssl=self.context, **(timeouts if self.context else {})
            )
        except OSError:  # a handshake that failed, or was too slow
            self.admission.leave(connection)
            made.close()
            return
        connection.close = transport.abort
        if connection.place is None:  # evicted in the very last moment
            transport.abort()


def _is_closed(made: socket.socket) -> bool:
    """Return whether the other side has closed a connection of which there is something to read."""
    try:
        return not made.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


class AdmittingServer(uvicorn.Server):
    """uvicorn with a :class:`Listener`.

    Args:
        config: of uvicorn, loaded.
        admission: who may stay.
        seconds: in which the first byte of a connection must come.
    """

    def __init__(self, config: uvicorn.Config, admission: Admission, seconds: float) -> None:
        super().__init__(config)
        self.admission, self.seconds = admission, seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen at the sockets."""
        await self.lifespan.startup()
        config = self.config

        def made(connection: Connection) -> asyncio.Protocol:
            kind: Any = config.http_protocol_class
            protocol: asyncio.Protocol = kind(
                config=config,
                server_state=self.server_state,
                app_state=self.lifespan.state | {"connection": connection},
            )
            return protocol

        assert sockets, "bound by the caller"
        # uvicorn closes them as it would its own.
        self.servers: list[Any] = [
            Listener(one, made, self.admission, config.ssl, self.seconds) for one in sockets
        ]
        self.started = True
