"""A run as it was charged, beside the same rounds charged anew."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from sflam.records.history import RoundRecord
from sflam.report.terminal.plain_table import plain_table
from sflam.units import human_si


def replay_table(recorded: Sequence[RoundRecord], replayed: Sequence[RoundRecord], title: str = "") -> Table:
    """Return a row for each: seconds and joules of the whole run, its slowest round, and how good the plans are.

    Args:
        recorded: the rounds as they were, with charges.
        replayed: the same rounds with other charges.
        title: above the table.
    """
    headers = ("charged", "allocator", "virtual time", "energy", "slowest round", "worst gap")
    table = plain_table(headers, title, left=("charged", "allocator"))
    for name, records in (("as recorded", recorded), ("anew", replayed)):
        charges = [record.charge for record in records if record.charge is not None]
        seconds = [charge.seconds for charge in charges]
        gaps = [charge.gap for charge in charges if charge.gap is not None]
        table.add_row(
            name,
            charges[-1].method,
            human_si(sum(seconds), "s"),
            human_si(sum(charge.energy for charge in charges), "J"),
            human_si(max(seconds), "s"),
            f"{100 * max(gaps):.2g} %" if gaps else "-",
        )
    return table
