"""One process at a time in a folder: locks that the system releases when the process ends, however it ends.

A process that holds a folder may hold it again: the same lock is then shared. There are no locks on Windows.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sflam.errors import RunError, SflamError
from sflam.files import writing

if sys.platform != "win32":
    import fcntl

POLL_S = 0.1


class Hold:
    """A folder that is held, until :meth:`release` or until nothing refers to this.

    Attributes:
        descriptor: of the folder, for a child process that shares the lock; None where there are none.
    """

    def __init__(self, descriptor: int | None) -> None:
        self.descriptor = descriptor
        self._close = weakref.finalize(self, _close, descriptor)

    @property
    def held(self) -> bool:
        """Whether it was not released."""
        return self._close.alive

    def release(self) -> None:
        """Let others have the folder."""
        self._close()


_ONE_THREAD = threading.Lock()
_HELD: weakref.WeakValueDictionary[tuple[int, int], Hold] = weakref.WeakValueDictionary()


def hold(folder: Path, busy: str, *, patience: float = 0.0, error: type[SflamError] = RunError) -> Hold:
    """Return the lock on an existing folder.

    Args:
        folder: which.
        busy: the message where another process holds it, with what to do.
        patience: seconds to wait for that process.
        error: what is raised.

    Raises:
        SflamError: ``error``, for a folder that is held by another process or cannot be opened.
    """
    if sys.platform == "win32":
        return Hold(None)
    with writing(folder, "choose another folder", error):
        descriptor = os.open(folder, os.O_RDONLY)
    found = os.fstat(descriptor)
    key = (found.st_dev, found.st_ino)
    with _ONE_THREAD:
        ours = _HELD.get(key)
        if ours is not None and ours.held:
            os.close(descriptor)
            return ours
        if not _locked(descriptor, patience):
            os.close(descriptor)
            raise error(busy)
        _HELD[key] = held = Hold(descriptor)
    return held


@contextmanager
def alone(path: Path, busy: str, *, patience: float, error: type[SflamError] = RunError) -> Iterator[None]:
    """Change a file that is read and written again: no other process or thread does at that time.

    Args:
        path: which; its folder must exist, and gets a lock file beside it.
        busy: as in :func:`hold`.
        patience: as in :func:`hold`.
        error: as in :func:`hold`.

    Raises:
        SflamError: ``error``, as :func:`hold` does.
    """
    if sys.platform == "win32":
        yield
        return
    with writing(path, "choose another path", error):
        descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _locked(descriptor, patience):
            raise error(busy)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int, patience: float) -> bool:
    """Return whether the lock was taken within so many seconds."""
    assert sys.platform != "win32"
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if time.monotonic() >= until:
                return False
            time.sleep(POLL_S)


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
