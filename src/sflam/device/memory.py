"""Memory of this process, as the system counts it."""

from __future__ import annotations

import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


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
