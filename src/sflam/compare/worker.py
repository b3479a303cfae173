"""One run of a comparison, in a process of its own: its task on standard input, its progress on standard output.

The first line of standard input is JSON: ``path``, ``job``, the ``modules`` that register own methods, and where to
``search`` for them. Every line of standard output is JSON: ``what`` and
``rounds`` as ``sflam.compare.running.OnEvent`` takes them, or ``problem`` and ``diverged``. When
standard input closes, so does this.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from importlib import import_module
from pathlib import Path

from sflam.compare.running import failure_of, run_here
from sflam.compare.waiting import Waiting
from sflam.config import Job, load
from sflam.errors import ConfigError, SflamError


def main() -> int:
    """Run the task on standard input; return the exit code."""
    asked = json.loads(_line())
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is no event

    def on_event(name: str, what: str, rounds: int) -> None:
        print(json.dumps({"what": what, "rounds": rounds}), file=events, flush=True)

    path = Path(asked["path"])
    try:
        _register(asked["modules"], asked["search"])
        run_here(Waiting(path.name, _job(asked["job"]), path), on_event)
    except SflamError as error:
        failed = failure_of(error)
        print(json.dumps({"problem": failed.why, "diverged": failed.diverged}), file=events, flush=True)
        return 2
    return 0


def _register(modules: list[str], search: list[str]) -> None:
    """Import the modules that register own methods."""
    sys.path += [folder for folder in search if folder not in sys.path]
    for name in modules:
        try:
            import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"module {name}, which registers own methods, cannot be imported in a process of its own ({error}); "
                "put it where Python finds it, or give --jobs 1"
            ) from error


def _job(text: str) -> Job:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.toml"
        path.write_text(text, encoding="utf-8")
        return load(path)


def _line() -> bytes:
    """Return the first line; unbuffered, so that the thread that waits for the end sees all that follows."""
    line = b""
    while not line.endswith(b"\n"):
        letter = os.read(0, 1 << 16)
        if not letter:
            sys.exit(3)
        line += letter
    return line


def _leave_with_parent() -> None:
    while os.read(0, 1 << 10):
        pass
    os._exit(3)  # checkpoints are whole at any instant


if __name__ == "__main__":
    sys.exit(main())
