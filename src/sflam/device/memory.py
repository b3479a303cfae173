"""Memory of this process: as the system counts it, and given back to the system as soon as it is free."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STATUS = Path("/proc/self/status")
MMAP_THRESHOLD, THP_DISABLE = -3, 41
"""``M_MMAP_THRESHOLD`` of glibc's ``mallopt``, ``PR_SET_THP_DISABLE`` of Linux's ``prctl``."""
LARGE = 256 << 10
"""Bytes from which on an array has pages of its own."""


def settle() -> None:
    """Make this process give large arrays back as soon as they are freed, and hold no pages that it never wrote to.

    glibc raises the size from which an array gets pages of its own to that of the largest that was freed; from then on
    such arrays leave holes in its heap. NumPy asks for pages of 2 MB, of which arrays fill a part. Other systems than
    Linux are left as they are.
    """
    if sys.platform != "linux":
        return
    import ctypes

    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(MMAP_THRESHOLD, LARGE)
    if hasattr(library, "prctl"):
        library.prctl(THP_DISABLE, 1, 0, 0, 0)


class Pages:
    """Memory whose pages can be given back to the system while it stays as it is addressed.

    Attributes:
        array: uint8 of so many bytes, undefined after :meth:`give_back`.
    """

    def __init__(self, nbytes: int) -> None:
        own = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
        self._map = mmap.mmap(-1, nbytes, **own) if nbytes else None
        self.array: NDArray[Any] = (
            np.empty(0, np.uint8) if self._map is None else np.frombuffer(self._map, np.uint8)
        )

    def give_back(self) -> None:
        """Let the system take the pages; those that are used again come as they are used."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def peak_bytes() -> int:
    """Return the most resident bytes of this process so far: VmHWM, or what ``getrusage`` reports elsewhere."""
    if STATUS.is_file():
        return _field("VmHWM")
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def resident_bytes() -> int:
    """Return the resident bytes of this process now; its peak where the system does not say."""
    return _field("VmRSS") if STATUS.is_file() else peak_bytes()


def _field(name: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"{STATUS} has no {name}")
