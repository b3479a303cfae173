"""Tables for a paper: LaTeX with booktabs, Markdown, and CSV of plain numbers in SI units."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sflam.files import replace_file, writing

_LATEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "µ": r"$\mu$",
    "<": "$<$",
    ">": "$>$",
    "–": "--",
}
FIGURES = (
    "accuracy",
    "rounds",
    "virtual_s",
    "energy_j",
    "bytes_up",
    "bytes_down",
    "device_memory_bytes",
    "device_flop",
)
COSTS = ("rounds", "virtual_s", "energy_j", "bytes")


def latex(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """Return a LaTeX table, for ``\\usepackage{booktabs}``: first column left, numbers right; words are escaped."""

    def line(cells: Sequence[str]) -> str:
        return f"{' & '.join(map(escaped, cells))} \\\\"

    columns = "l" + "r" * (len(head) - 1)
    body = ["\\toprule", line(head), "\\midrule", *map(line, rows), "\\bottomrule"]
    table = [f"\\begin{{tabular}}{{{columns}}}", *body, "\\end{tabular}"]
    titled = [f"\\caption{{{escaped(caption)}}}"] if caption else []
    return "\n".join(["\\begin{table}", "\\centering", *titled, *table, "\\end{table}"]) + "\n"


def escaped(text: str) -> str:
    """Return a text that LaTeX shows as it is."""
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """Return a Markdown table, its caption above; first column left, numbers right."""

    def line(cells: Sequence[str]) -> str:
        shown = [re.sub(r"([|\\])", r"\\\1", " ".join(cell.split())) for cell in cells]
        return f"| {' | '.join(shown)} |"

    rule = f"|---|{'---:|' * (len(head) - 1)}"
    return "\n".join([*([caption, ""] if caption else []), line(head), rule, *map(line, rows)]) + "\n"


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of equal keys as CSV; what is not known is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def numbers(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row per method and figure: mean, the ends of its interval, and how many seeds, in SI units.

    Figures to reach a target are named ``KEY to TARGET``; where a seed missed it, the mean is empty and ``at_least`` is
    what it is larger than.

    Args:
        found: method -> its means, as ``Compared.to_dict`` gives them.
    """
    rows = []
    for method, item in found.items():
        known = {"method": method, "reached": ""}
        seeds = item.get("seeds", 1)
        for key in FIGURES:
            rows.append(known | _cells(key, item[key], item.get("intervals", {}).get(key), seeds))
        for cost in item.get("to_targets", []):
            for key in COSTS:
                name = f"{key} to {cost['target']:g}"
                bound = cost["at_least"][key] if cost["reached"] < cost["of"] else None
                cells = _cells(name, cost[key], cost["intervals"].get(key), cost["of"], bound)
                rows.append(known | cells | {"reached": cost["reached"]})
    return rows


def write_tables(
    folder: Path, name: str, tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[str]]]]
) -> None:
    """Write tables as NAME.tex and NAME.md, one below the other; raises RunError where they cannot be written.

    Args:
        folder: to write to.
        name: of the files.
        tables: caption -> head and rows.
    """
    for suffix, written in ((".tex", latex), (".md", markdown)):
        text = "\n".join(written(head, rows, caption) for caption, (head, rows) in tables.items())
        write_text(folder / f"{name}{suffix}", text)


def write_text(path: Path, text: str) -> None:
    """Write a text file, all of it or nothing; raises RunError where it cannot be written."""
    with writing(path, "choose another folder"):
        replace_file(path, text.encode())


def _cells(
    key: str, mean: Any, interval: Mapping[str, Any] | None, seeds: int, bound: float | None = None
) -> dict[str, Any]:
    ends = {"low": interval["low"], "high": interval["high"]} if interval else {"low": None, "high": None}
    return {"figure": key, "mean": mean, **ends, "at_least": bound, "n": seeds}
