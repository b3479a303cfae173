"""A device's secret, from which its noise is drawn: made once, kept in its folder, and never sent."""

from __future__ import annotations

import os
from pathlib import Path

from sflam.codec.guard import Guard, guard_of
from sflam.config import Job
from sflam.errors import ServeError
from sflam.files import reading, replace_file, writing

FILE, BYTES = "noise.secret", 32


def own_guard(job: Job, folder: Path) -> Guard | None:
    """Return what a device in ``folder`` does to what it sends; None where its job asks for nothing.

    Raises:
        ServeError: the secret cannot be read or written, or is not one.
    """
    if not job.privacy.promises or job.privacy.reproducible:
        return guard_of(job.privacy, job.seed)
    path = folder / FILE
    if not path.exists():
        with writing(path, "choose another --folder", ServeError):
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(path, os.urandom(BYTES), mode=0o600)
    with reading(path, "choose another --folder", ServeError):
        secret = path.read_bytes()
    if len(secret) != BYTES:
        raise ServeError(
            f"{path} holds {len(secret)} bytes, not a secret of {BYTES}; choose another --folder"
        )
    return guard_of(job.privacy, job.seed, secret)
