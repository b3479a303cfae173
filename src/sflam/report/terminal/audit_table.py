"""What an audit found, in the terminal: a row per cut and width, and what it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sflam.report.terminal.plain_table import plain_table
from sflam.units import human_bytes, human_si

INPUTS = ("images", "texts")


def audit_table(found: Mapping[str, Any], title: str = "") -> RenderableType:
    """Return a row per cut and width with the best attack of each kind, the guesses beside them, and sentences.

    Args:
        found: what ``sflam audit --json`` prints.
        title: above the table.
    """
    about, place = _about(found), _place(found)
    table = plain_table((*place, "up a sample", about, "by", "labels right", "by"), title)
    for row in found["cells"]:
        inputs, labels = (_best(found, name, row) for name in (about, "labels"))
        table.add_row(
            *_placed(row, place),
            human_bytes(row["bytes_up"]),
            *(("-", "-") if inputs is None else (f"{inputs['score']:.3f}", inputs["attack"])),
            *(("-", "-") if labels is None else (f"{labels['score']:.1%}", labels["attack"])),
        )
    parts = [
        table,
        *(_table(*rows) for rows in (worth_rows(found), member_rows(found), mix_rows(found)) if rows[1]),
    ]
    return Group(*parts, *(Text(line) for line in found["sentences"]))


def worth_rows(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return what each cut, width and noise gives away, leaves and costs; a star where no other beats it in all."""
    place, about = _place(found), _about(found)
    rows = [
        [
            *_placed(row, place),
            f"{row['leak']:.3f}",
            "-" if row["accuracy"] is None else f"{row['accuracy']:.1%}",
            "-" if row["latency_s"] is None else human_si(row["latency_s"], "s"),
            "-" if row["energy_j"] is None else human_si(row["energy_j"], "J"),
            "*" if row["front"] else "",
        ]
        for row in found["cells"]
    ]
    return [*place, about, "accuracy", "round", "energy", "best"], rows


def member_rows(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return how well each attack tells who was trained on; no rows before any training."""
    place = [each for each in _place(found) if each != "bits"]
    rows = [
        [
            *_placed(each, place),
            each["attack"],
            f"{each['score']:.3f}",
            f"{each['more']['caught_at_1_percent']:.1%}",
        ]
        for each in found["findings"]
        if each["about"] == "members"
    ]
    return [*place, "members by", "area under ROC", "caught at 1 % false alarms"], rows


def mix_rows(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return how near an attack gets to the class mixes of devices; no rows where none was made."""
    rows = [
        [f"{each['cut']:g}", each["attack"], f"{each['score']:.3f}", f"{each['guess']:.3f}"]
        for each in found["findings"]
        if each["about"] == "class mix"
    ]
    return ["cut", "class mix by", "overlap with the true mix", "a guess"], rows


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = plain_table(head)
    for row in rows:
        table.add_row(*row)
    return table


def _place(found: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns that say where a row is; noise only where there is any."""
    return ("cut", "bits", "noise") if any(row["noise"] for row in found["cells"]) else ("cut", "bits")


def _about(found: Mapping[str, Any]) -> str:
    return next(name for name in INPUTS if any(each["about"] == name for each in found["findings"]))


def _placed(row: Mapping[str, Any], place: Sequence[str]) -> list[str]:
    """Return the cells that say where a row is."""
    return [width_text(row[key]) if key == "bits" else f"{row[key]:g}" for key in place]


def width_text(bits: int | None) -> str:
    """Return a width as people read it."""
    return "floats" if bits is None else str(bits)


def _best(found: Mapping[str, Any], about: str, cell: Mapping[str, Any]) -> Mapping[str, Any] | None:
    there = [
        each
        for each in found["findings"]
        if (each["about"], each["cut"], each["bits"], each["noise"])
        == (about, cell["cut"], cell["bits"], cell["noise"])
    ]
    return max(there, key=lambda each: float(each["score"]), default=None)
