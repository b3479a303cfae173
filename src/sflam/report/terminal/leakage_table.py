"""What less given away costs, in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import RenderableType

from sflam.report.terminal.plain_table import plain_table
from sflam.units import human_si


def leakage_table(levels: Sequence[tuple[float, int, float, float]]) -> RenderableType:
    """Return a table of (score of the best attack, least cut, seconds, joules) of the best plans; inf for none."""
    table = plain_table(("best attack", "least cut", "round", "energy"))
    for leak, cut, seconds, joules in levels:
        shown = (
            [human_si(seconds, "s", 4), human_si(joules, "J", 4)]
            if np.isfinite(seconds)
            else ["no plan", "-"]
        )
        table.add_row(f"{leak:.3g}", str(cut), *shown)
    return table
