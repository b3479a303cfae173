"""Measured stability in the terminal: the measurement and its bounds at every tuned fraction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from sflam.report.terminal.plain_table import plain_table

BOUNDS = {
    "soft": "soft bound (5.2), c = 1/2",
    "calibrated": "soft bound, c fitted at one p",
    "hard": "hard-mask bound (5.3)",
}


def stability_table(found: Mapping[str, Any], title: str = "") -> RenderableType:
    """Return a row per tuned fraction and a sentence per bound.

    Args:
        found: what ``sflam stability --json`` prints; losses in nats.
        title: above the table.
    """
    headers = ("layers", "p", "measured", "rho", "curvature", "soft", "fitted c", "hard")
    table = plain_table(headers, title)
    for row in found["fractions"]:
        error = "" if row["error"] is None else f" ± {row['error']:.1g}"
        table.add_row(
            f"{row['layers']:g}",
            f"{row['fraction']:.2f}",
            f"{row['measured']:.3g}{error}",
            f"{row['rho']:.2g}",
            f"{row['curvature']:.2g}",
            *(_bound(row[name]) for name in ("soft", "calibrated", "hard")),
        )
    return Group(table, *(Text(line) for line in _sentences(found)))


def _bound(value: float | None) -> str:
    return "none" if value is None else f"{value:.2g}"


def _sentences(found: Mapping[str, Any]) -> Sequence[str]:
    rises = "does not fall" if found["measured_increasing"] else "falls somewhere"
    lines = [f"measured instability {rises} as more layers are tuned"]
    for name, item in found["bounds"].items():
        label = BOUNDS[name]
        rank = "-" if item["rank_correlation"] is None else f"{item['rank_correlation']:+.2f}"
        if item["ratio_least"] is None:
            lines.append(f"{label}: no bound; the curvature with it is not positive at any p")
            continue
        most = "infinite" if item["ratio_most"] is None else f"{item['ratio_most']:.3g}"
        held = "holds" if item["holds"] else "does not hold"
        lines.append(
            f"{label}: {held}; bound / measured {item['ratio_least']:.3g} to {most}, rank correlation {rank}"
        )
    if found["penalty"] is not None:
        p = found["fractions"][found["fitted_at"]]["fraction"]
        lines.append(f"c = {found['penalty']:.3g} was fitted at p = {p:.2f}, and is judged at the others")
    return lines
