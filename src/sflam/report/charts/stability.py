"""Measured stability in the terminal and as a picture: the measurement and its bounds against the tuned fraction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sflam.report.charts.plan import save

BOUNDS = {
    "soft": ("soft bound (5.2), c = 1/2", "#D55E00", "s", "--"),
    "calibrated": ("soft bound, c fitted at one p", "#E69F00", "D", ":"),
    "hard": ("hard-mask bound (5.3)", "#009E73", "^", "-."),
}


def stability_table(found: Mapping[str, Any], title: str = "") -> RenderableType:
    """Return a row per tuned fraction and a sentence per bound.

    Args:
        found: what ``sflam stability --json`` prints; losses in nats.
        title: above the table.
    """
    table = Table(
        title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    for header in ("layers", "p", "measured", "rho", "curvature", "soft", "fitted c", "hard"):
        table.add_column(header, justify="right", no_wrap=True)
    for row in found["fractions"]:
        error = "" if row["error"] is None else f" ± {row['error']:.1g}"
        table.add_row(
            str(row["layers"]),
            f"{row['fraction']:.2f}",
            f"{row['measured']:.3g}{error}",
            f"{row['rho']:.2g}",
            f"{row['curvature']:.2g}",
            *(_bound(row[name]) for name in ("soft", "calibrated", "hard")),
        )
    return Group(table, *(Text(line) for line in _sentences(found)))


def draw_stability(found: Mapping[str, Any], path: Path, *, title: str = "") -> None:
    """Write a PNG of the measurement, with its standard error, and of the finite bounds; losses on a log scale.

    Args:
        found: what ``sflam stability --json`` prints.
        path: of the PNG.
        title: above the picture.

    Raises:
        RunError: the file cannot be written.
    """
    figure = Figure(figsize=(7.0, 4.8), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    axes = figure.subplots()
    rows = found["fractions"]
    axes.errorbar(
        [row["fraction"] for row in rows],
        [row["measured"] for row in rows],
        yerr=[row["error"] or 0.0 for row in rows],
        color="#0072B2",
        marker="o",
        capsize=3,
        label="measured (± standard error)",
        zorder=3,
    )
    for name, (label, colour, marker, line) in BOUNDS.items():
        seen = [(row["fraction"], row[name]) for row in rows if row[name] is not None]
        if seen:
            axes.plot(*zip(*seen, strict=True), color=colour, marker=marker, linestyle=line, label=label)
    axes.set_yscale("log")
    axes.set_xlim(0, 1.04)
    axes.set_xlabel("tuned fraction p (tuned layers / all layers)")
    axes.set_ylabel("average-replace-one stability (nats)")
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    if title:
        figure.suptitle(title, fontsize=12)
    save(figure, path)


def _bound(value: float | None) -> str:
    return "none" if value is None else f"{value:.2g}"


def _sentences(found: Mapping[str, Any]) -> Sequence[str]:
    rises = "does not fall" if found["measured_increasing"] else "falls somewhere"
    lines = [f"measured instability {rises} as more layers are tuned"]
    for name, one in found["bounds"].items():
        label = BOUNDS[name][0]
        rank = "-" if one["rank_correlation"] is None else f"{one['rank_correlation']:+.2f}"
        if one["ratio_least"] is None:
            lines.append(f"{label}: says nothing; the curvature with it is not positive at any p")
            continue
        most = "infinite" if one["ratio_most"] is None else f"{one['ratio_most']:.3g}"
        held = "holds" if one["holds"] else "does not hold"
        lines.append(
            f"{label}: {held}; bound / measured {one['ratio_least']:.3g} to {most}, rank correlation {rank}"
        )
    if found["penalty"] is not None:
        p = found["fractions"][found["fitted_at"]]["fraction"]
        lines.append(f"c = {found['penalty']:.3g} was fitted at p = {p:.2f}, and is judged at the others")
    return lines
