"""One way to a server that all its devices share: a relay that passes on so many bits a second, of all together."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing, contextmanager, suppress

CHUNK = 4096
"""Bytes that a connection passes on before it is another's turn."""
LATE = 0.05
"""Seconds by which a busy machine may wake a connection late, and the rate still holds."""


class SharedLink:
    """Relays connections to a port on this machine; what goes there takes turns at one rate, what comes back is free.

    Attributes:
        port: where devices connect.
        passed: bytes that went to the server.
        busy: seconds in which they did.
    """

    def __init__(self, rate, upstream):
        self.rate, self.upstream = rate, upstream
        self.passed, self.busy, self._free = 0, 0.0, 0.0
        self._turn = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * CHUNK)
        self.port = self._listener.getsockname()[1]
        self._open = [self._listener]
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self):
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _listen(self):
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self.upstream))
                except OSError:  # the server is away; the link is not
                    near.close()
                    continue
                for each in (near, far):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open += [near, far]
                threading.Thread(target=self._pass, args=(near, far, self._wait), daemon=True).start()
                threading.Thread(target=self._pass, args=(far, near, lambda size: None), daemon=True).start()

    def _pass(self, source, goal, wait):
        with closing(source), closing(goal), suppress(OSError):
            while piece := source.recv(CHUNK):
                wait(len(piece))
                goal.sendall(piece)

    def _wait(self, size):
        """Wait for a turn of as long as ``size`` bytes take; turns follow one another."""
        took = 8 * size / self.rate
        with self._turn:
            # one that woke late may catch up
            end = max(self._free, time.monotonic() - LATE) + took
            self._free, self.passed, self.busy = end, self.passed + size, self.busy + took
        time.sleep(max(end - time.monotonic(), 0.0))


@contextmanager
def shared_link(rate, upstream):
    """Yield a link of ``rate`` bit/s to a port."""
    link = SharedLink(rate, upstream)
    try:
        yield link
    finally:
        link.close()
