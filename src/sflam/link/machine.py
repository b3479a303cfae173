"""How the machine of a device fares, as far as its system tells: memory of the process, heat, and its battery."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

SYS, PROC = Path("/sys"), Path("/proc")
GROUP = SYS / "fs/cgroup"
"""The control group of the process, as a container or a systemd unit sees its own."""
THROTTLED = "devices/platform/soc/soc:firmware/get_throttled"
"""Of a Raspberry Pi: hexadecimal flags, of which the lowest four are of now."""
COOLERS = re.compile(r"(?i)processor|cpufreq|thermal-cpufreq.*")
"""Kinds of cooling devices that slow the processor down."""


def peak_memory(proc: Path = PROC) -> int:
    """Return the most resident bytes of this process so far; 0 where the system does not tell."""
    if (found := _kilobytes(_text(proc / "self/status"), "VmHWM")) is not None:
        return found
    try:
        import resource
    except ImportError:  # not Unix
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def memory_left(proc: Path = PROC, group: Path = GROUP) -> int | None:
    """Return the bytes of memory that this process could still have; None where the system does not tell.

    The least of what the machine has free, of what the process's own limits leave (``RLIMIT_DATA``, which
    ``--most-memory`` sets, and ``RLIMIT_AS``), and of what its control group has left, cached files not counted.
    """
    status, found = _text(proc / "self/status"), []
    machine = _kilobytes(_text(proc / "meminfo"), "MemAvailable")
    found += [] if machine is None else [machine]
    for limit, taken in ((_limit("RLIMIT_DATA"), "VmData"), (_limit("RLIMIT_AS"), "VmSize")):
        held = _kilobytes(status, taken)
        found += [] if limit is None or held is None else [limit - held]
    most, now = _number(group / "memory.max"), _number(group / "memory.current")
    if most is not None and now is not None:
        cached = re.search(r"^inactive_file (\d+)$", _text(group / "memory.stat"), re.MULTILINE)
        found.append(most - now + (int(cached[1]) if cached else 0))
    return max(0, min(found)) if found else None


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


def _kilobytes(text: str, name: str) -> int | None:
    """Return the bytes of a line of /proc such as ``VmData:  1234 kB``; None without it."""
    found = re.search(rf"^{name}:\s*(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _limit(name: str) -> int | None:
    """Return a limit that the system holds this process to; None without one."""
    try:
        import resource
    except ImportError:  # not Unix
        return None
    soft, _ = resource.getrlimit(getattr(resource, name))
    return None if soft == resource.RLIM_INFINITY else soft


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
