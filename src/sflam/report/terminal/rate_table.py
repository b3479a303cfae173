"""The result of every method at every learning rate of the grid, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from sflam.records.history import VALIDATION
from sflam.report.terminal.plain_table import plain_table
from sflam.report.totals import percent

LOST, FAILED = "diverged", "failed"
APART = "chosen on validation samples, before any test sample was looked at"
REUSED = "the same held-out data chooses the rate and is what accuracies are of, so the best is slightly overestimated"
"""What was compared before there was a third part of the data, and the reader must know."""


def how_chosen(rates: Mapping[str, Any]) -> str:
    """Return on what samples the rate was chosen, and what that means for the accuracies."""
    return APART if rates.get("part") == VALIDATION else REUSED


def rate_title(rates: Mapping[str, Any]) -> str:
    """Return what the grid was and how its best is chosen."""
    grid = ", ".join(f"{rate:g}" for rate in rates["grid"])
    return (
        f"rate: the best of {grid} by {rates.get('part', 'held-out')} {rates['by']} on seed {rates['seed']}"
    )


def rate_rows(
    rates: Mapping[str, Any], chosen: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str, list[str]]]:
    """Return a row per method: its name, its best rate or ``-``, and its result at each.

    Args:
        rates: as ``RateGrid.to_dict`` gives it.
        chosen: the methods' means, with their ``learning_rate``.
    """
    rows = []
    for name, tried in rates["methods"].items():
        best = chosen.get(name, {}).get("learning_rate")
        rows.append(
            (name, "-" if best is None else f"{best:g}", [rate_result(item, rates["by"]) for item in tried])
        )
    return rows


def rate_result(tried: Mapping[str, Any], by: str) -> str:
    """Return the result of a method at one rate, for people."""
    if "why" in tried:
        return LOST if tried["diverged"] else FAILED
    value = tried[by]
    if value is None:
        return "-"
    return percent(value) if by == "accuracy" else f"{value:.4f}"


def rate_table(rates: Mapping[str, Any], chosen: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a row per method and a column per rate; see ``rate_rows``."""
    grid: Sequence[float] = rates["grid"]
    headers = ("method", "rate", *(f"at {rate:g}" for rate in grid))
    table = plain_table(
        headers, f"{rate_title(rates)}; {how_chosen(rates)}", left=("method",), wraps=("method",)
    )
    for name, best, cells in rate_rows(rates, chosen):
        table.add_row(name, best, *cells)
    return table
