"""Write a file so that a crash leaves the old content or the new one, never a mixture.

In this order: write a temporary file beside the target, fsync it, rename it over the target
(the commit point), fsync the folder, so that the rename itself survives a power cut.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from sflam.errors import RunError, SflamError

CHUNK_BYTES = 1 << 20
ANYONE = 0o666
"""Mode of files that anyone may read, as far as the user's umask lets them."""
_TEMPORARY = ".tmp"


@contextmanager
def writing(what: object, advice: str, error: type[SflamError] = RunError) -> Iterator[None]:
    """Raise ``error`` where what is done within fails on the disk: what cannot be written, why, and ``advice``."""
    try:
        yield
    except OSError as problem:
        raise error(f"{what} cannot be written ({problem.strerror or problem}); {advice}") from problem


@contextmanager
def reading(what: object, advice: str, error: type[SflamError] = RunError) -> Iterator[None]:
    """Raise ``error`` where what is read within cannot be: see :func:`writing`."""
    try:
        yield
    except OSError as problem:
        raise error(f"{what} cannot be read ({problem.strerror or problem}); {advice}") from problem


def from_json(text: str | bytes | bytearray) -> Any:
    """Return what a JSON text holds; raises ValueError, for one that is nested too deep too."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def visible_files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and its folders, in no order, but what begins with a dot."""
    for path in folder.rglob("*"):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def write_all(descriptor: int, body: bytes, *, chunk: int = CHUNK_BYTES) -> None:
    """Write every byte of ``body`` to an open file descriptor; raises OSError (a full disk, for one)."""
    view = memoryview(body)
    while view:
        view = view[os.write(descriptor, view[:chunk]) :]


def mode_of(path: Path, fresh: int) -> int:
    """Return who may read and write a file; ``fresh`` where there is none yet."""
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else fresh


def replace_file(path: Path, body: bytes, *, chunk: int = CHUNK_BYTES, mode: int = ANYONE) -> None:
    """Make ``body`` the content of ``path``, all or nothing; ``mode`` is who may read it, from its first byte on.

    The parent folder must exist. Raises OSError; what was at ``path`` before is then untouched and the
    temporary file is gone.
    """
    temporary = path.with_name(f".{path.name}{_TEMPORARY}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            if mode != ANYONE and hasattr(os, "fchmod"):  # a temporary file that was left has its own
                os.fchmod(descriptor, mode)
            write_all(descriptor, body, chunk=chunk)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield an empty file that becomes ``path`` where what is done within succeeds, and is gone where it does not.

    The parent folder must exist. Raises OSError; what was at ``path`` before is then untouched.
    """
    temporary = path.with_name(f".{path.name}{_TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` survive a power cut (a no-op where folders cannot be opened)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_files(folder: Path) -> None:
    """Make the files in ``folder``, written without waiting for the disk, survive a power cut."""
    for path in sorted(folder.iterdir()):
        if path.is_file():
            descriptor = os.open(path, os.O_RDWR)  # Windows syncs only what is open for writing
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    sync_folder(folder)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files a killed process left in ``folder``; for the folder's one writer only."""
    for leftover in folder.glob(f".*{_TEMPORARY}"):
        leftover.unlink(missing_ok=True)
