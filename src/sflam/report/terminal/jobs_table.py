"""The jobs of one server as its user sees them at the end: a row for each."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from sflam.report.terminal.plain_table import plain_table
from sflam.report.totals import percent


def jobs_table(rows: Iterable[tuple[str, str, int, int, float | None, str]]) -> Table:
    """Return a row for each job: its name, state, rounds done, rounds of all, accuracy in [0, 1] and run folder."""
    table = plain_table(
        ("job", "state", "rounds", "accuracy", "run folder"),
        left=("job", "state", "run folder"),
        wraps=("run folder",),
    )
    for name, state, done, rounds, accuracy, folder in rows:
        table.add_row(name, state, f"{done}/{rounds}", percent(accuracy), folder)
    return table
