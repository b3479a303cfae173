"""Which cuts, widths and noises no other beats: leakage against accuracy, latency and energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LOST = 0.02
"""Accuracy that a recommendation gives up at most."""


def on_front(rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Return of each row whether no other is at least as good in all, and better in something.

    Args:
        rows: each with ``leak``, ``latency_s`` and ``energy_j``, where less is better, and ``accuracy``, where more is;
            None where it is not known, and then of no row.
    """
    keys = [
        key for key in ("leak", "latency_s", "energy_j", "accuracy") if all(r[key] is not None for r in rows)
    ]
    points = [tuple(-row[key] if key == "accuracy" else row[key] for key in keys) for row in rows]
    return [
        not any(other != own and all(a <= b for a, b in zip(other, own, strict=True)) for other in points)
        for own in points
    ]


def recommended(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the row that gives least away of those that lose little accuracy; None where it is not known."""
    known = [row for row in rows if row["accuracy"] is not None]
    best = max((row["accuracy"] for row in known), default=0.0)
    good = [row for row in known if row["accuracy"] >= best - LOST]
    return min(good, key=lambda row: (row["leak"], -row["accuracy"]), default=None)
