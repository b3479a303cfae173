"""What a plan for several servers costs and asks of each, in the terminal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rich.console import RenderableType
from rich.text import Text

from sflam.report.terminal.plain_table import plain_table

Floats = NDArray[np.float64]


def costs_table(delay: float, energy: float, instability: float, fit: float = 0.0) -> RenderableType:
    """Return a line with the parts of the objective and their shares; ``fit`` where it counts."""
    total = delay + energy + instability + fit
    parts = {"delay": delay, "energy": energy, "instability": instability} | ({"fit": fit} if fit else {})
    share = 100 / total if 0 < total < np.inf else np.nan
    words = ", ".join(
        f"{name} {value:.4g} ({f'{share * value:.0f} %' if np.isfinite(share) else '-'})"
        for name, value in parts.items()
    )
    return Text(f"of which {words}")


def loads_table(
    users: Floats, bandwidth: Floats, bands: Floats, clock: Floats, clocks: Floats
) -> RenderableType:
    """Return a table of every server's users, and of what they use of its band (Hz) and clock (Hz); [M] each."""
    table = plain_table(("server", "users", "MHz", "of", "GHz", "of"))
    for index in range(len(users)):
        table.add_row(
            str(index),
            f"{users[index]:.0f}",
            f"{bandwidth[index] / 1e6:.4g}",
            f"{bands[index] / 1e6:.4g}",
            f"{clock[index] / 1e9:.4g}",
            f"{clocks[index] / 1e9:.4g}",
        )
    return table
