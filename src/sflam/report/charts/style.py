"""The look of every chart, as a picture and on a page: colours for light and dark, markers, dashes, fonts.

A method looks the same everywhere. Colour, marker and dash each distinguish methods, so grey print and colour-blind
readers lose nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib

from sflam.allocate.settings import EDGE_METHODS
from sflam.allocate.settings import METHODS as CELL_METHODS
from sflam.learn.settings.practice import METHODS

COLOURS = {
    "ink": ("#1c2127", "#e8ebee"),
    "quiet": ("#5d6771", "#a0abb5"),
    "grid": ("#e9ecef", "#2a3138"),
    "card": ("#ffffff", "#1c2126"),
    "s0": ("#0072b2", "#58b4f5"),
    "s1": ("#c75000", "#ff8f4f"),
    "s2": ("#00805d", "#3fcf9f"),
    "s3": ("#b3589a", "#ea9fd2"),
    "s4": ("#b27d00", "#f2bd4a"),
    "s5": ("#3a95cf", "#9bd6ff"),
    "s6": ("#222222", "#f5f5f5"),
    "s7": ("#7a7a7a", "#a9a9a9"),
    "s8": ("#4b3fa8", "#aaa0ff"),
    "s9": ("#882255", "#e07aa8"),
    "s10": ("#77772a", "#cccc66"),
    "s11": ("#7a3b10", "#d09a70"),
    "s12": ("#d4145a", "#ff5c93"),
    "s13": ("#12808f", "#5fd3e0"),
    "s14": ("#6fa321", "#b4e35c"),
    "s15": ("#8e5bd0", "#cfa4ff"),
    "s16": ("#1a2f6b", "#7f9bf0"),
    "s17": ("#e2685e", "#ffb3ab"),
    "s18": ("#0f4d2c", "#6fae86"),
    "s19": ("#9c8a5a", "#e3d3a4"),
    "compute": ("#2f7fc1", "#4b9fe3"),
    "up": ("#e08a00", "#f5a623"),
    "server": ("#b4599b", "#d98cc4"),
    "down": ("#00906a", "#35bd92"),
    "adapters": ("#8a6d3b", "#c2a46b"),
    "waiting": ("#e3e7ea", "#2d353c"),
}
"""Name -> colour on white, and on dark paper; no two are equal on white, where a page finds them by their value."""
ON_WHITE = {name: light for name, (light, _) in COLOURS.items()}
INK, QUIET, GRID, CARD = (ON_WHITE[name] for name in ("ink", "quiet", "grid", "card"))

_HUES = [ON_WHITE[f"s{number}"] for number in range(20)]
_MARKERS = "os^DvPX*<>phdH81+x23"
_DASHES = (
    *((), (6, 2), (2, 2), (7, 2, 1.5, 2), (4, 1.5), (1, 1.5), (10, 3), (6, 2, 1.5, 2, 1.5, 2)),
    *((3, 3), (10, 2, 3, 2), (1, 3), (5, 1, 1, 1)),
    *((8, 4), (2, 1), (12, 2, 1, 2), (3, 1, 1, 1, 1, 1), (6, 6), (8, 2, 2, 2, 2, 2), (1, 6), (4, 1, 2, 1)),
)
RC: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": QUIET,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "errorbar.capsize": 2.5,
    "grid.color": GRID,
    "figure.titlesize": 12,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "sflam",
    "text.color": INK,
    "text.parse_math": False,  # a name may hold a dollar sign
    "xtick.color": QUIET,
    "xtick.labelsize": 9,
    "ytick.color": QUIET,
    "ytick.labelsize": 9,
}


PAPER: dict[Any, Any] = {
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "figure.titlesize": 8,
    "legend.fontsize": 7,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
}
"""What differs in a column of a paper."""


class Look(NamedTuple):
    """How one line is drawn."""

    colour: str
    marker: str
    dash: tuple[float, ...]

    @property
    def line(self) -> dict[str, Any]:
        """Arguments for ``Axes.plot``."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "linestyle": (0, self.dash) if self.dash else "-",
        }


def look(number: int) -> Look:
    """Return one of many looks; the first twenty share neither colour nor marker nor dash."""
    turn, place = divmod(number, len(_HUES))
    return Look(
        _HUES[place], _MARKERS[(place + 5 * turn) % len(_MARKERS)], _DASHES[(place + turn) % len(_DASHES)]
    )


_OWN = {name: place for place, name in enumerate(METHODS)}
_ALLOCATORS = {
    name: place % len(_HUES) for place, name in enumerate(dict.fromkeys((*CELL_METHODS, *EDGE_METHODS)))
}


def looks_of(names: Sequence[str]) -> dict[str, Look]:
    """Return the look of every name, no two alike.

    A training method and, where no method has it, an allocator (alone or after ``+``) always has its own; names of
    users get the next that is free.
    """
    wanted = {name: _OWN.get(name, _ALLOCATORS.get(name.rpartition("+")[2], len(METHODS))) for name in names}
    taken: dict[int, str] = {}
    for name in sorted(wanted, key=lambda name: name not in _OWN):  # methods first; a stable order
        place = wanted[name]
        while place in taken:
            place += 1
        taken[place] = name
    found = {name: look(place) for place, name in taken.items()}
    return {name: found[name] for name in names}


@contextmanager
def styled(width: str = "") -> Iterator[None]:
    """Build or render a chart in this style; what no font can show is left to the reader's.

    Args:
        width: of a paper's column, which has smaller letters; "" for a screen.
    """
    with matplotlib.rc_context(RC | (PAPER if width else {})), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
