"""The server's log for those who collect logs: a line for each event and request, in files of bounded size.

When a file is full it becomes ``NAME.1``, that one ``NAME.2``, and so on; the oldest goes.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from sflam.errors import ConfigError, ServeError
from sflam.files import writing

FORMATS = ("json", "text")
KEPT = 5
"""Files that are full, beside the one that is written."""
MEGABYTE = 1_000_000
TOKEN = re.compile(r"sflam(_|-operator_)[A-Za-z0-9_-]{16,}")


class LogFile:
    """A log in files; may be used from any thread.

    Args:
        path: the file that is written.
        form: ``json``, or ``text`` for people.
        most_mb: megabytes of a file.

    Raises:
        ConfigError: another form, or no size.
        ServeError: the file cannot be written.
    """

    def __init__(self, path: Path, form: str = "json", most_mb: float = 50.0) -> None:
        problems = []
        if form not in FORMATS:
            problems.append(f"--log-format is {form!r}; it must be one of {', '.join(FORMATS)}")
        if not 0.001 <= most_mb <= 1e6:
            problems.append(f"--log-max-mb is {most_mb}; it must be from 0.001 to 1e6 megabytes")
        if problems:
            raise ConfigError(problems)
        self.path, self.form, self.most = path, form, int(most_mb * MEGABYTE)
        self._lock = threading.Lock()
        self._file: TextIO | None = None
        with writing(f"log {path}", "give another --log-file", ServeError):
            self._open()
        self.close()

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Write a line; an error of the disk does not stop the server."""
        text = hidden(json.dumps(line) if self.form == "json" else _text(line)) + "\n"
        with self._lock:
            try:
                file = self._file or self._open()
                if file.tell() and file.tell() + len(text) > self.most:
                    file = self._turned()
                file.write(text)
                file.flush()
            except OSError:
                self._file = None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _open(self) -> TextIO:
        self._file = self.path.open("a", encoding="ascii", errors="backslashreplace")
        return self._file

    def _turned(self) -> TextIO:
        """Make room: every file gets the next number, and an empty one is begun."""
        assert self._file is not None, "it is full"
        self._file.close()
        self._file = None
        files = [self.path, *(self.path.with_name(f"{self.path.name}.{n}") for n in range(1, KEPT + 1))]
        for older, newer in reversed(list(zip(files[1:], files, strict=False))):
            if newer.exists():
                newer.replace(older)
        return self._open()


def hidden(text: str) -> str:
    """Return a text without tokens: in a log they would be as good as stolen."""
    return TOKEN.sub(r"sflam\1...", text)


def _text(line: Mapping[str, Any]) -> str:
    """Return a line for people: time, event, and the rest as key=value."""
    when = datetime.fromtimestamp(line["time"], UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    rest = [f"{key}={json.dumps(value)}" for key, value in line.items() if key not in ("time", "event")]
    return " ".join([when, str(line["event"]), *rest])
