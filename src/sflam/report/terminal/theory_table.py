"""The bound on convergence in the terminal: beside the measurement, and what each width would mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from sflam.report.terminal.plain_table import plain_table


def theory_table(found: Mapping[str, Any], title: str = "") -> RenderableType:
    """Return a row per measurement, a row per width, and what they say.

    Args:
        found: what ``sflam theory --json`` prints; gradients in loss per unit of parameter.
        title: above the table.
    """
    table = plain_table(("steps", "loss", "|grad F|^2", "mean so far", "bound", "without rounding"), title)
    for row in found["points"]:
        table.add_row(
            str(row["steps"]),
            f"{row['loss']:.4g}",
            f"{row['gradient']:.3g} ± {row['gradient_error']:.1g}",
            *(_number(row[name]) for name in ("mean_gradient", "bound", "bound_plain")),
        )
    widths = plain_table(("bits", "rounds, times", "bias^2 / |grad F|^2", "steps promised"))
    for row in found["widths"]:
        widths.add_row(
            str(row["bits"]),
            f"{row['rounds_factor']:.4g}",
            f"{row['bias_share']:.2g}",
            "none" if row["promised_steps"] is None else f"{row['promised_steps']:.3g}",
        )
    return Group(table, widths, *(Text(line) for line in _sentences(found)))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _sentences(found: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"measured: L = {found['smoothness']:.3g}, step = {found['step']:.3g} ({found['along_gradient']:.0%} of the "
        f"way is along the gradient), gap = {found['gap']:.3g} (the loss at the start)"
    )
    yield (
        f"variance of a step {found['variance_plain']:.3g}, with this quantization {found['variance']:.3g}; "
        f"squared bias {found['squared_bias']:.2g}"
    )
    if found["step"] * found["smoothness"] > 1:
        yield "steps are longer than 1 / L, of which the bound says nothing: train with a lower learn.lr"
    ratios = [
        row["bound"] / row["mean_gradient"]
        for row in found["points"]
        if row["bound"] is not None and row["mean_gradient"] > 0
    ]
    if ratios:
        held = "holds" if found["holds"] else "does not hold"
        yield f"the bound {held}: {min(ratios):.3g} to {max(ratios):.3g} times the measured mean"
    least = found["least_bits"]
    yield (
        f"fewest bits at which a device's squared bias is a quarter of |grad F|^2 or less: {min(least)} to {max(least)}"
    )
    yield f"steps promised: until E|grad F|^2 <= {found['target']:.3g}, a tenth of that at the start"
