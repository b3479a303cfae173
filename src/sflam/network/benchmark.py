"""This machine's speed, measured: a profile for a network file."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sflam.errors import ConfigError
from sflam.files import writing
from sflam.network.profiles import GIGA, KEYS, Profile, to_toml
from sflam.units import human_bytes

SIDE = 768
"""Matrices of this side: large enough to be bound by arithmetic, small enough for a board."""


@dataclass(frozen=True, kw_only=True)
class MachineSpeed:
    """A profile and where its numbers come from.

    Attributes:
        profile: SI numbers.
        flops: float32 FLOP/s of large matrix products, the best of several.
        notes: what could not be read here, and what replaces it.
    """

    profile: Profile
    flops: float
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The profile in one sentence."""
        profile = self.profile
        return (
            f"{self.flops / GIGA:.4g} GFLOP/s on {profile.cores} cores at {profile.clock / GIGA:.3g} GHz "
            f"({profile.flops_per_cycle:.3g} FLOP per cycle and core), {human_bytes(profile.memory)}"
        )

    @property
    def numbers(self) -> dict[str, float]:
        """What the file holds, beside the speed."""
        return {"gflops": self.flops / GIGA} | {
            key: getattr(self.profile, attribute) / factor
            for key, (attribute, factor, _, _) in KEYS.items()
            if getattr(self.profile, attribute) is not None
        }


def write_profile(path: Path, **known: float) -> MachineSpeed:
    """Measure this machine and write its profile; keywords are those of :func:`measure`.

    Raises:
        ConfigError: the file exists or cannot be written, or an impossible number.
    """
    if path.exists():
        raise ConfigError(f"{path} exists already; give another name, or remove it first")
    found = measure(**known)
    remarks = (
        f"Measured by sflam profile: {found.summary}.",
        "clock_ghz and flops_per_cycle: of one core; power_w: at full load above idle_w; 0: not known.",
    )
    with writing(path, "give another path", ConfigError):
        path.write_text(to_toml(found.profile, remarks=remarks), encoding="utf-8")
    return found


def measure(
    *,
    seconds: float = 1.0,
    clock: float | None = None,
    power: float | None = None,
    idle: float | None = None,
    rate: float | None = None,
) -> MachineSpeed:
    """Measure this machine.

    Args:
        seconds: how long to multiply matrices.
        clock: Hz, where it is known better than the system reports.
        power: W drawn at full load above idle, from a meter.
        idle: W drawn when idle, from a meter.
        rate: bit/s of its uplink, measured elsewhere.

    Raises:
        ConfigError: a number that is not positive (idle and power may be 0).
    """
    wrong = [
        f"{name} is {value}; it must be {'0 or more' if low == 0 else 'positive'}"
        for name, value, low in (
            ("--seconds", seconds, 1e-9),
            ("--clock-ghz", clock, 1e-9),
            ("--rate-mbps", rate, 1e-9),
            ("--power-w", power, 0),
            ("--idle-w", idle, 0),
        )
        if value is not None and not low <= value < 1e30
    ]
    if wrong:
        raise ConfigError(wrong)
    cores, notes = usable_cores(), []
    known = clock or highest_clock()
    if known is None:
        known = GIGA
        notes.append("the clock cannot be read here: 1 GHz is used; give --clock-ghz")
    if power is None:
        notes.append("no power was given, so computing costs no energy here; measure it and give --power-w")
    flops = matmul_flops(seconds)
    profile = Profile(
        cores=cores,
        flops_per_cycle=flops / (cores * known),
        clock=known,
        memory=float(usable_memory()),
        power=power or 0.0,
        idle=idle or 0.0,
        efficiency=1.0,  # what was measured is what it reaches
        rate=rate or 0.0,
    )
    return MachineSpeed(profile=profile, flops=flops, notes=tuple(notes))


def matmul_flops(seconds: float, *, timer: Callable[[], float] = time.perf_counter) -> float:
    """Return the float32 FLOP/s of square matrix products, the best of those done in ``seconds``."""
    draw = np.random.default_rng(0)
    left, right = (draw.standard_normal((SIDE, SIDE)).astype(np.float32) for _ in range(2))
    out = left @ right  # the first product pays for starting threads
    best, start = np.inf, timer()
    while True:
        begin = timer()
        np.matmul(left, right, out=out)
        end = timer()
        best = min(best, end - begin)
        if end - start >= seconds:
            return 2.0 * SIDE**3 / best


def usable_cores() -> int:
    """Return the cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def usable_memory(limits: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes of memory this process may use: the machine's, or its control group's limit."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _text(limits / name).strip()
        if text.isdigit():
            whole = min(whole, int(text))
    return whole


def highest_clock(
    system: Path = Path("/sys/devices/system/cpu"), info: Path = Path("/proc/cpuinfo")
) -> float | None:
    """Return the highest clock in Hz that the system reports, or None."""
    value = _text(system / "cpu0" / "cpufreq" / "cpuinfo_max_freq").strip()
    if value.isdigit() and int(value):
        return int(value) * 1e3
    seen = [float(found) for found in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", _text(info), re.MULTILINE)]
    return max(seen) * 1e6 if seen and max(seen) > 0 else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
