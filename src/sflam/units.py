"""The only unit conversions in sflam: SI inside, dB, dBm and prefixes at the edge."""

from __future__ import annotations

import math


def db_to_ratio(db: float) -> float:
    """Return the power ratio 10^(db/10)."""
    return float(10.0 ** (db / 10.0))


def dbm_to_watt(dbm: float) -> float:
    """Return the power in W of ``dbm`` decibels above one milliwatt."""
    return db_to_ratio(dbm - 30.0)


def human_bytes(count: float) -> str:
    """Return a byte count for people, decimal prefixes: ``1234567`` -> ``'1.23 MB'``."""
    value, prefixes = float(count), ("B", "kB", "MB", "GB", "TB")
    for prefix in prefixes:
        if abs(value) < 1000 or prefix == prefixes[-1]:
            return f"{value:.0f} B" if prefix == "B" else f"{value:.2f} {prefix}"
        value /= 1000
    raise AssertionError("unreachable")


def human_si(value: float, unit: str, digits: int = 3) -> str:
    """Return a quantity for people with a prefix from nano to peta: ``(1.5e6, 'Hz')`` -> ``'1.5 MHz'``."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g} {unit}"
    power = min(5, max(-3, math.floor(math.log10(abs(value)) / 3 + 1e-12)))
    scaled = value / 1000.0**power
    if abs(float(f"{scaled:.{digits}g}")) >= 1000 and power < 5:  # 999.96 rounds into the next prefix
        power += 1
        scaled = value / 1000.0**power
    text = f"{scaled:.{digits}g}" if abs(scaled) < 1000 else f"{scaled:.0f}"
    return f"{text} {['n', 'µ', 'm', '', 'k', 'M', 'G', 'T', 'P'][power + 3]}{unit}"
