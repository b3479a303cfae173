"""The server's log: one JSON object per line, with time, event, and, where there are any, device, round and attempt.

Refusals cannot fill a disk: only so many are written in a second, and the rest are counted.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from sflam.serve.log_file import LogFile, hidden

REFUSALS = 5
"""Refusals written in one second, at most."""


class EventLog:
    """Events of a served run; may be used from any thread.

    Args:
        path: the file they are appended to; None keeps none.
        clock: Unix time, s.
        more: where events go besides, and requests alone; None keeps no log of requests.
        job: name of the run's job, in every line, where the process serves several.
    """

    def __init__(
        self,
        path: Path | None = None,
        clock: Callable[[], float] = time.time,
        more: LogFile | None = None,
        job: str = "",
    ) -> None:
        self.path, self.clock, self.more = path, clock, more
        self._job = {"job": job} if job else {}
        self._lock = threading.Lock()
        self._file: TextIO | None = None
        self._second, self._written, self._omitted = 0, 0, 0

    def __call__(self, event: str, **values: Any) -> None:
        """Write an event; an error of the disk does not stop the server."""
        line = (
            {"time": round(self.clock(), 3), "event": event}
            | self._job
            | {key: value for key, value in values.items() if value is not None}
        )
        if self.more is not None:
            self.more(line)
        if self.path is None:
            return
        with self._lock:
            try:
                self._file = self._file or self.path.open("a", encoding="utf-8")
                self._file.write(hidden(json.dumps(line)) + "\n")
                self._file.flush()
            except OSError:
                self._file = None

    def request(self, **values: Any) -> None:
        """Write a request that was answered, where there is a log of them."""
        if self.more is not None:
            known = {key: value for key, value in values.items() if value is not None}
            self.more({"time": round(self.clock(), 3), "event": "request"} | self._job | known)

    def refused(
        self, status: int, reason: str, device: int | None, path: str, request: str | None = None
    ) -> None:
        """Write a refusal, unless there have been enough in this second."""
        now = int(self.clock())
        with self._lock:
            if now != self._second:
                self._second, self._written = now, 0
            self._written += 1
            if self._written > REFUSALS:
                self._omitted += 1
                return
            omitted, self._omitted = self._omitted, 0
        self(
            "refused",
            status=status,
            reason=reason[:300],
            device=device,
            path=path[:100],
            request=request,
            untold=omitted or None,
        )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
        if self.more is not None:
            self.more.close()
