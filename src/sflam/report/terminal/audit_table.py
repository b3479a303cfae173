"""What an audit found, in the terminal: a row per cut and width, and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from sflam.report.terminal.plain_table import plain_table
from sflam.units import human_bytes

INPUTS = ("images", "texts")


def audit_table(found: Mapping[str, Any], title: str = "") -> RenderableType:
    """Return a row per cut and width with the best attack of each kind, the guesses beside them, and sentences.

    Args:
        found: what ``sflam audit --json`` prints.
        title: above the table.
    """
    about = next(name for name in INPUTS if any(each["about"] == name for each in found["findings"]))
    table = plain_table(("cut", "bits", "up a sample", about, "by", "labels right", "by"), title)
    for row in found["cells"]:
        inputs, labels = (_best(found, name, row) for name in (about, "labels"))
        table.add_row(
            str(row["cut"]),
            width_text(row["bits"]),
            human_bytes(row["bytes_up"]),
            *(("-", "-") if inputs is None else (f"{inputs['score']:.3f}", inputs["attack"])),
            *(("-", "-") if labels is None else (f"{labels['score']:.1%}", labels["attack"])),
        )
    members = plain_table(("cut", "members by", "area under ROC", "caught at 1 % false alarms"))
    for each in found["findings"]:
        if each["about"] == "members":
            members.add_row(
                str(each["cut"]),
                each["attack"],
                f"{each['score']:.3f}",
                f"{each['more']['caught_at_1_percent']:.1%}",
            )
    parts = [table, *([members] if members.row_count else [])]
    return Group(*parts, *(Text(line) for line in found["sentences"]))


def width_text(bits: int | None) -> str:
    """Return a width as people read it."""
    return "floats" if bits is None else str(bits)


def _best(found: Mapping[str, Any], about: str, cell: Mapping[str, Any]) -> Mapping[str, Any] | None:
    there = [
        each
        for each in found["findings"]
        if (each["about"], each["cut"], each["bits"]) == (about, cell["cut"], cell["bits"])
    ]
    return max(there, key=lambda each: float(each["score"]), default=None)
