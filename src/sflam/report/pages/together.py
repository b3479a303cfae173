"""The page of any runs side by side: tables, accuracy against every cost, and the settings in which they differ."""

from __future__ import annotations

from sflam.records.history import part_of
from sflam.report.charts.comparison import bars_note, comparison_panels
from sflam.report.figures import FIGURES, cost_panel
from sflam.report.outcome import targets_of
from sflam.report.pages.inline import charts
from sflam.report.pages.page import NumberTable, render
from sflam.report.terminal.comparison_table import intervals_note, result_rows, target_rows
from sflam.report.together import Together, differing, outcomes


def together_page(found: Together) -> str:
    """Return the HTML page of some finished runs, label -> its runs."""
    items = outcomes(found)
    targets = targets_of(items)
    rows = {item.name: item.to_dict([target.accuracy for target in targets]) for item in items}
    lines = {name: [run.records for run in runs] for name, runs in found.items()}
    job = next(iter(found.values()))[0].job
    bars = [panel for figure in FIGURES if (panel := cost_panel(lines, figure))]
    most = max(map(len, found.values()))
    return render(
        "together.html.jinja",
        job,
        title=" and ".join(found) if len(found) < 3 else f"{len(found)} runs side by side",
        labels=list(found),
        intervals=intervals_note(rows).removeprefix(", "),
        results=NumberTable(*result_rows(rows, device=True)),
        part=part_of([record for runs in lines.values() for run in runs for record in run]),
        targets=[
            target.to_dict() | {"table": NumberTable(*target_rows(rows, place=place))}
            for place, target in enumerate(targets)
        ],
        curves=charts(comparison_panels(lines), bars_note(most)),
        bars=charts(bars, bars_note(most)),
        settings_table=NumberTable(["setting", *found], differing(found)),
        runs=NumberTable(
            ["label", "method", "seed", "folder"],
            [
                (name, run.job.learn.method, str(run.job.seed), run.name)
                for name, runs in found.items()
                for run in runs
            ],
        ),
    )
