"""What scripts share that draw lines along one setting: their options, the CSV file, the picture."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from sflam.report.charts import figure as charts
from sflam.report.charts.lines import Line, line_panel
from sflam.report.charts.style import looks_of

Row = dict[str, object]


class Panel(NamedTuple):
    """One quantity: the title of its panel, what stands beside its axis, and whether that is logarithmic."""

    title: str
    upward: str
    log: bool


def options(description: str | None, repeats: str, default: int) -> argparse.ArgumentParser:
    """Return the options; ``--repeats`` is named, and by default as many, as given."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", type=Path)
    for name in ("key", "values", "methods"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--label", default="")
    parser.add_argument(f"--{repeats}", type=int, default=default)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--out", type=Path, required=True)
    return parser


def draw(rows: Sequence[Row], key: str, label: str, panels: Mapping[str, Panel], title: str) -> Figure:
    """Return a panel per quantity, a line per method."""
    looks = looks_of(list(dict.fromkeys(str(row["method"]) for row in rows)))
    drawn = []
    for name, panel in panels.items():
        lines = [
            Line(
                name=each, look=look, points=[(row[key], row[name]) for row in rows if row["method"] == each]
            )
            for each, look in looks.items()
        ]
        drawn.append(
            line_panel(
                panel.title,
                lines,
                across=label or key,
                upward=panel.upward,
                log_y=panel.log,
                from_zero=False,
            )
        )
    return charts.draw(drawn, title=title)


def write(rows: Sequence[Row], figure: Figure, folder: Path, name: str) -> None:
    """Write ``name``.csv and ``name``.png into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    charts.save(figure, folder / f"{name}.png")
    print(f"wrote {name}.csv, {name}.png to {folder}")
