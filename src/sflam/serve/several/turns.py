"""Whose turn it is to compute: the jobs of one process have one torch between them.

Its generator, its threads and its warnings are the process's, so of all jobs one computes at a time, and what it
computes is what it would alone. A job gives its turn up whenever it waits for devices, and between two steps or two
batches of an evaluation; turns go around in the order in which they were asked for, so no job waits for more than one
piece of each other's work.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock that is handed on in the order in which threads came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[tuple[int, threading.Event]] = deque()
        self._holder: int | None = None

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Have the turn inside, once all who asked before have had theirs."""
        self._take()
        try:
            yield
        finally:
            self._give()

    @contextmanager
    def others(self) -> Iterator[None]:
        """Let others have the turn inside, and take it again; nothing changes for a thread that does not have it."""
        if self._holder != threading.get_ident():
            yield
            return
        self._give()
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        own, called = threading.get_ident(), threading.Event()
        with self._lock:
            assert self._holder != own, "a thread has one turn at a time"
            if self._holder is None:
                self._holder = own
                return
            self._queue.append((own, called))
        called.wait()

    def _give(self) -> None:
        with self._lock:
            self._holder = None
            if self._queue:
                self._holder, called = self._queue.popleft()
                called.set()
