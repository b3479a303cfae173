"""One bar in a notebook's cell, redrawn in its place; the saved notebook keeps the last state alone."""

from __future__ import annotations

import html
import sys
import time
from importlib import import_module
from typing import Any

LEAST_S = 0.1
"""Seconds between two drawings: a front end that is far away keeps up."""
CELLS = 20
"""Of the bar where no HTML is shown."""


def in_kernel() -> bool:
    """Return whether this process is the kernel of a notebook, which shows what is displayed."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class NotebookBar:
    """A bar over a count, with words before it and a line beneath; shown when it is made."""

    def __init__(self) -> None:
        self._words, self._beneath = "", ""
        self._completed, self._total = 0.0, 1.0
        self._drawn = time.monotonic()
        self._handle: Any = None

    def show(self, words: str, beneath: str, completed: float, total: float, *, last: bool = False) -> None:
        """Draw the bar anew, at most every ``LEAST_S`` seconds but for the ``last`` time."""
        self._words, self._beneath = words, beneath
        self._completed, self._total = completed, max(total, 1.0)
        now = time.monotonic()
        if self._handle is None:
            self._handle = import_module("IPython.display").display(self, display_id=True)
        elif last or now - self._drawn >= LEAST_S:
            self._drawn = now
            self._handle.update(self)

    def _repr_html_(self) -> str:
        """Return the bar as HTML, in the notebook's own colours."""
        words, beneath = html.escape(self._words), html.escape(self._beneath)
        ends = f'value="{self._completed:g}" max="{self._total:g}"'
        bar = f'<progress {ends} style="width: 24em; max-width: 60%"></progress>'
        return f'<div>{bar} {words}<br><span style="opacity: 0.75">{beneath}</span></div>'

    def __repr__(self) -> str:
        full = round(CELLS * min(1.0, self._completed / self._total))
        return f"{self._words} [{'#' * full}{'.' * (CELLS - full)}] {self._beneath}".rstrip()
