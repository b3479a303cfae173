"""A mean with half its confidence interval for people, both in the unit that suits the mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from sflam.report.costs import unit_of
from sflam.report.totals import brief, joules, percent
from sflam.units import human_bytes

UNITS: dict[str, tuple[tuple[float, str], ...]] = {
    "s": ((7200.0, "h"), (120.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "J": ((1e6, "MJ"), (1e3, "kJ"), (1.0, "J"), (1e-3, "mJ"), (1e-6, "µJ")),
    "B": ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")),
    "%": ((0.0, "%"),),
    "": ((0.0, ""),),
}
ALONE: dict[str, Callable[[float], str]] = {
    "s": brief,
    "J": joules,
    "B": human_bytes,
    "%": percent,
    "": lambda value: f"{value:.3g}",
}
"""How a mean without an interval is written."""


def plus_minus(value: Mapping[str, Any] | float | None, unit: str, *, signed: bool = False) -> str:
    """Return a figure for people, as ``12.3 ± 0.4 s``; ``-`` where it is not known.

    Args:
        value: as :meth:`sflam.report.statistics.Interval.to_dict` gives it, or a mean alone.
        unit: ``s``, ``J``, ``B``, ``%`` (of a share in [0, 1]) or nothing.
        signed: also show the sign of a mean above 0, as of a difference.
    """
    if value is None:
        return "-"
    mean, high = (value["mean"], value["high"]) if isinstance(value, Mapping) else (value, None)
    half = None if high is None else high - mean
    if not math.isfinite(mean) or not math.isfinite(half or 0.0):
        return f"{mean:g} {unit}".rstrip()
    sign = "+" if signed and mean > 0 else ""
    if not half and not signed:
        return ALONE[unit](mean)
    scale, name = (0.01, "%") if unit == "%" else unit_of(max(abs(mean), half or 0.0), UNITS[unit])
    scale = scale or 1.0
    places = max(_places(mean / scale, (half or 0.0) / scale), int(unit == "%"))
    text = f"{sign}{mean / scale:.{places}f}"
    if half:
        text += f" ± {half / scale:.{places}f}"
    return f"{text} {'points' if unit == '%' and signed else name}".rstrip()


def _places(mean: float, half: float) -> int:
    """Return how many decimals show a digit of the half, and two to four of the mean; of a mean alone three."""
    of_mean = 2 - math.floor(math.log10(abs(mean))) if mean else 1
    if not half:
        return max(0, min(of_mean, 4))
    of_half = -math.floor(math.log10(half))
    return max(0, min(max(of_mean - 1, of_half), of_mean + 1, 4))
