"""How the machine of a device fares, as far as its system tells: memory of the process, heat, and its battery."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

SYS, PROC = Path("/sys"), Path("/proc")
THROTTLED = "devices/platform/soc/soc:firmware/get_throttled"
"""Of a Raspberry Pi: hexadecimal flags, of which the lowest four are of now."""
COOLERS = re.compile(r"(?i)processor|cpufreq|thermal-cpufreq.*")
"""Kinds of cooling devices that slow the processor down."""


def peak_memory(proc: Path = PROC) -> int:
    """Return the most resident bytes of this process so far; 0 where the system does not tell."""
    found = re.search(r"^VmHWM:\s*(\d+) kB", _text(proc / "self/status"), re.MULTILINE)
    if found:
        return int(found[1]) * 1024
    try:
        import resource
    except ImportError:  # not Unix
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def temperature(system: Path = SYS) -> float | None:
    """Return the degrees Celsius of the hottest sensor; None without one."""
    degrees = [value / 1000 for value in _numbers(system, "class/thermal/thermal_zone*/temp")]
    return max((value for value in degrees if -100 <= value <= 300), default=None)


def throttled(system: Path = SYS) -> bool | None:
    """Return whether the processor is slowed down by heat or voltage; None where the system does not tell."""
    flags = _text(system / THROTTLED).strip().removeprefix("0x")
    try:
        return bool(int(flags, 16) & 0xF)
    except ValueError:
        pass
    states = [
        _number(path / "cur_state")
        for path in sorted(system.glob("class/thermal/cooling_device*"))
        if COOLERS.fullmatch(_text(path / "type").strip())
    ]
    known = [state for state in states if state is not None]
    return any(known) if known else None


def battery(system: Path = SYS) -> float | None:
    """Return what is left of the battery, from 0 to 1; None without one."""
    left = list(_numbers(system, "class/power_supply/*/capacity"))
    return min(max(min(left) / 100, 0.0), 1.0) if left else None


def _numbers(system: Path, pattern: str) -> Iterator[int]:
    for path in sorted(system.glob(pattern)):
        value = _number(path)
        if value is not None:
            yield value


def _number(path: Path) -> int | None:
    try:
        return int(_text(path).strip())
    except ValueError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # a sensor may be there and refuse to be read
        return ""
