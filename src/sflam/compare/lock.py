"""A folder belongs to one comparison at a time: the lock on it, held by this process and by every worker.

A comparison that is asked for again after this process was killed begins when the last worker is gone.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sflam.errors import RunError
from sflam.files import writing

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
PATIENCE = 15.0
"""Seconds to wait for the workers of a comparison that was killed."""


@contextmanager
def alone(folder: Path) -> Iterator[int | None]:
    """Hold a comparison's folder, which is made; yield the descriptor of its lock, None where there are none.

    Raises:
        RunError: it cannot be written, or another comparison holds it.
    """
    with writing(folder, "choose another with --out"):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if sys.platform == "win32":  # two comparisons in one folder are not detected there
            yield None
            return
        until = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > until:
                    raise RunError(
                        f"another comparison is writing to {folder}; wait for it, or choose another with --out"
                    ) from None
                time.sleep(0.1)
        yield descriptor
    finally:
        os.close(descriptor)
