"""The one look of tables in a terminal: words to the left, numbers to the right, narrow enough for eighty columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table


def plain_table(
    headers: Sequence[str], title: str = "", *, left: Collection[str] = (), wraps: Collection[str] = ()
) -> Table:
    """Return an empty table; columns are right-aligned but for those in ``left``, and one line but for ``wraps``."""
    table = Table(
        title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    for header in headers:
        table.add_column(header, justify="left" if header in left else "right", no_wrap=header not in wraps)
    return table
