"""What a served job may take of a device, compared with what the job announces before anything is fetched.

A server that announces less than it then asks for runs into the same limits later: no file may be larger than
announced, and where the system can limit the memory of a process, a limit given by the user holds for all of it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sflam.config import Job
from sflam.errors import ServeError
from sflam.link.job import ServedJob

MEGABYTE = 1_000_000
COPIES = 4
"""Of what a device trains: the values, their gradients, and Adam's two moments."""
STATES = 3
"""Files of its state on disk at once: the last, the next, and what a round began with."""
WIDEST = 8
"""Bytes of a trained number, at most."""


@dataclass(frozen=True)
class Limits:
    """What the user of a device lets a job take.

    Attributes:
        memory: most bytes of memory; None takes what this machine has.
        disk: most bytes in the device's folder; None takes what is free there.
    """

    memory: int | None = None
    disk: int | None = None

    def expect_within(self, served: ServedJob, job: Job, folder: Path, *, held: bool) -> None:
        """Raise ServeError where a job needs more, by what it announces; nothing has been fetched then.

        Args:
            served: the server's description.
            job: its settings.
            folder: of the device.
            held: whether the frozen part of the model is held in memory whole.
        """
        segment = served.sizes.get(served.segment, 0) if held else 0
        memory = segment + COPIES * trained_bytes(served, job) + 2 * served.body
        if memory > (most := self.memory or _installed()):
            raise ServeError(
                f"this job needs at least {_mb(memory)} of memory on this device ({_parts(served, job)}); "
                f"{_mb(most)} are allowed; raise --most-memory, or ask for a smaller model.rank, cut or batch"
            )
        disk = sum(served.sizes.values()) + STATES * (COPIES - 1) * trained_bytes(served, job)
        if disk > (most := self.disk or _free(folder)):
            raise ServeError(
                f"this job needs at least {_mb(disk)} in {folder} ({len(served.sizes)} files of "
                f"{_mb(sum(served.sizes.values()))}, and the state of this device); {_mb(most)} are allowed; raise "
                "--most-disk, make room, or choose another --folder"
            )

    @contextmanager
    def enforced(self) -> Iterator[None]:
        """Let the system hold this process to the memory its user gave, where it can.

        Raises:
            ServeError: it needs more, whatever was announced.
        """
        if self.memory is None or not sys.platform.startswith("linux"):
            yield
            return
        import resource

        before, hard = resource.getrlimit(resource.RLIMIT_DATA)
        soft = self.memory if hard == resource.RLIM_INFINITY else min(self.memory, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "alloc" not in str(error):  # torch's own kind
                raise
            raise ServeError(
                f"this process needs more than the {_mb(soft)} of memory that --most-memory allows; raise it, or leave "
                "this job"
            ) from error
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


def trained_bytes(served: ServedJob, job: Job) -> int:
    """Return the bytes of what a device trains: as announced, and no less than a rank of that many takes."""
    blocks = min(served.cut, abs(job.model.tuned) or served.cut)
    adapted = 2 * job.model.rank * max(1, served.dim) * blocks if job.model.trainable != "full" else 0
    frozen = job.learn.practice.device_half == "frozen"
    return WIDEST * served.trained if frozen else max(WIDEST * served.trained, 4 * adapted)


def _parts(served: ServedJob, job: Job) -> str:
    return (
        f"model.rank {job.model.rank}, {served.cut} blocks of {_mb(served.sizes.get(served.segment, 0))}, bodies of "
        f"{_mb(served.body)}"
    )


def _installed() -> int:
    """Return the bytes of memory of this machine; a terabyte where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 10**12


def _free(folder: Path) -> int:
    """Return the bytes that are free where a folder is, or will be."""
    at = folder.absolute()
    while not at.exists() and at != at.parent:
        at = at.parent
    return shutil.disk_usage(at).free


def _mb(size: int) -> str:
    return f"{size / MEGABYTE:,.1f} MB"
