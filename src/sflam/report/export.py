"""Figures and tables of runs as files for a paper: PNG, PDF, SVG, tidy CSV, LaTeX, Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sflam.files import writing
from sflam.records.history import RoundRecord
from sflam.records.saved import SavedComparison, SavedRun
from sflam.report.charts.comparison import draw_comparison
from sflam.report.charts.curves import draw_curves
from sflam.report.charts.figure import save_all
from sflam.report.charts.sweeps import draw_sweeps
from sflam.report.outcome import targets_of
from sflam.report.tables import csv_text, numbers, write_tables, write_text
from sflam.report.terminal.comparison_table import baseline_rows, intervals_note, result_rows, target_rows
from sflam.report.together import Together, outcomes
from sflam.report.totals import percent

Lines = Mapping[str, Sequence[Sequence[RoundRecord]]]


def export_run(run: SavedRun, folder: Path, width: str = "") -> list[Path]:
    """Write the curves of a run; see :func:`export_lines`."""
    _make(folder)
    return save_all(draw_curves(run.records, method=run.job.learn.method, width=width), folder / "curves")


def export_comparison(found: SavedComparison, folder: Path, width: str = "") -> list[Path]:
    """Write figures and tables of a comparison; see :func:`export_lines`."""
    saved = found.values
    lines = {name: [run.records for run in runs] for name, runs in found.runs.items()}
    baseline: str = saved["baseline"]
    written = export_lines(lines, saved["methods"], saved["targets"], folder, baseline=baseline, width=width)
    if found.sweeps:
        figure = draw_sweeps(
            found.sweeps, labels=saved["labels"], methods=saved["methods"], seeds=saved["seeds"], width=width
        )
        written += save_all(figure, folder / "sweeps")
    return written


def export_together(found: Together, folder: Path, width: str = "") -> list[Path]:
    """Write figures and tables of some runs side by side; see :func:`export_lines`."""
    items = outcomes(found)
    targets = targets_of(items)
    rows = {item.name: item.to_dict([target.accuracy for target in targets]) for item in items}
    lines = {name: [run.records for run in runs] for name, runs in found.items()}
    return export_lines(lines, rows, [target.to_dict() for target in targets], folder, width=width)


def export_lines(
    lines: Lines,
    rows: Mapping[str, Mapping[str, Any]],
    targets: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    baseline: str = "",
    width: str = "",
) -> list[Path]:
    """Write accuracy against every cost, and tables, into a folder, made where it is not there.

    Args:
        lines: name -> the rounds of each of its runs.
        rows: name -> its means, as ``Compared.to_dict`` gives them.
        targets: accuracies whose cost the rows hold, each with its rule.
        folder: to write comparison.png, .pdf, .svg, .csv, tables.tex, tables.md and results.csv to.
        baseline: whose differences the rows hold; "" for none.
        width: of figures, as of ``sflam.draw_accuracy``.

    Returns:
        What was written.

    Raises:
        RunError: the folder cannot be written.
        ConfigError: there is no such width.
    """
    figure = draw_comparison(lines, width=width)
    _make(folder)
    seeds = intervals_note(rows)
    tables = {f"Results{seeds}": result_rows(rows, device=True)}
    for place, target in enumerate(targets):
        tables[f"To reach {percent(target['accuracy'])}, {target['rule']}{seeds}"] = target_rows(
            rows, place=place
        )
    if baseline in rows and len(rows) > 1:
        tables[f"Less {baseline}, seed by seed{seeds}"] = baseline_rows(rows, baseline)
    written = save_all(figure, folder / "comparison")
    write_tables(folder, "tables", tables)
    write_text(folder / "results.csv", csv_text(numbers(rows)))
    return [*written, folder / "tables.tex", folder / "tables.md", folder / "results.csv"]


def _make(folder: Path) -> None:
    with writing(folder, "choose another with --figures"):
        folder.mkdir(parents=True, exist_ok=True)
