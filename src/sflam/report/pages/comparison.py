"""The page of a comparison: tables, accuracy against every cost, sweeps, and a round of every method."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from sflam.records.history import part_of
from sflam.records.saved import SavedComparison
from sflam.report.charts.bars import bar_panel
from sflam.report.charts.comparison import bars_note, comparison_panels
from sflam.report.charts.figure import Panel
from sflam.report.charts.style import looks_of
from sflam.report.charts.sweeps import sweep_panels
from sflam.report.charts.timeline import has_phases
from sflam.report.pages.inline import charts
from sflam.report.pages.page import NumberTable, command, environment, render
from sflam.report.pages.rounds import allocation, timeline
from sflam.report.terminal.comparison_table import baseline_rows, intervals_note, result_rows, target_rows
from sflam.report.terminal.rate_table import how_chosen, rate_rows, rate_title
from sflam.report.totals import brief, joules, percent

Rows = Mapping[str, Mapping[str, Any]]


def comparison_page(found: SavedComparison) -> str:
    """Return the HTML page of a finished comparison."""
    saved = found.values
    rows: Rows = saved["methods"]
    name, runs = next(iter(found.runs.items()))
    job, baseline, seeds, rates = runs[0].job, saved["baseline"], saved["seeds"], saved["rates"]
    last = {method: ones[0].records[-1] for method, ones in found.runs.items()}
    records = {method: [run.records for run in ones] for method, ones in found.runs.items()}
    swept = sweep_panels(found.sweeps, labels=saved["labels"], methods=rows)
    return render(
        "comparison.html.jinja",
        job,
        title=found.name,
        seeds=seeds,
        figures=_figures(rows, seeds),
        count=len(rows),
        results=NumberTable(*result_rows(rows, rates=bool(rates), device=True)),
        failed=saved["failed"],
        rates=_rates(rates, rows) if rates else None,
        reused=how_chosen(rates) if rates else "",
        part=part_of([item for runs in records.values() for run in runs for item in run]),
        intervals=intervals_note(rows).lstrip(", "),
        targets=[
            target | {"table": NumberTable(*target_rows(rows, place=place))}
            for place, target in enumerate(saved["targets"])
        ],
        baseline=baseline,
        against=NumberTable(*baseline_rows(rows, baseline)) if baseline and len(rows) > 1 else None,
        curves=charts(comparison_panels(records), bars_note(seeds)),
        sweeps=charts(swept, bars_note(seeds)),
        devices=charts(_of_a_device(rows)),
        timelines=[
            (method, timeline(record, opened=not number))
            for number, (method, record) in enumerate(last.items())
            if has_phases(record.charge)
        ],
        allocations=[(method, allocation(record)) for method, record in last.items() if record.charge],
        name=name,
        seed=runs[0].job.seed,
        runs=NumberTable(
            ["method", "seed", "folder"],
            [(method, str(run.job.seed), run.name) for method, ones in found.runs.items() for run in ones],
        ),
        environment=environment(runs[0].versions, job),
        command=_repeat(found),
    )


def _figures(rows: Rows, seeds: int) -> list[tuple[str, str]]:
    """Return the numbers that matter most: who is best at what."""
    found = [(str(len(rows)), "methods"), (str(seeds), "seeds" if seeds != 1 else "seed")]
    best = max(rows, key=lambda name: float(rows[name]["accuracy"]))
    found.append((percent(rows[best]["accuracy"]), f"most accurate: {best}"))
    for key, how, words in (("virtual_s", brief, "fastest"), ("energy_j", joules, "fewest joules")):
        known = {name: float(row[key]) for name, row in rows.items() if row[key] is not None}
        if known:
            name = min(known, key=known.__getitem__)
            found.append((how(known[name]), f"{words}: {name}"))
    return found


def _rates(rates: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
    """Return what every method reached at every rate of the grid."""
    head = ["method", "rate", *(f"at {rate:g}" for rate in rates["grid"])]
    title = rate_title(rates)
    body = [(name, best, *cells) for name, best, cells in rate_rows(rates, rows)]
    return {"title": title[0].upper() + title[1:], "table": NumberTable(head, body)}


def _of_a_device(rows: Rows) -> list[Panel]:
    """Return memory and computing of a device, method by method, each in its colour."""
    looks = looks_of(list(rows))
    panels: list[Panel] = []
    for key, title, scale, unit in (
        ("device_memory_bytes", "Memory, estimated", 1e6, "MB"),
        ("device_flop", "Computing in the run, by the cost model", 1e9, "GFLOP"),
    ):
        known = {name: row[key] / scale for name, row in rows.items() if row[key] is not None}
        if known:
            tints = [looks[name].colour for name in known]
            values = {"": list(known.values())}
            panels.append(bar_panel(title, list(known), values, upward=unit, across="method", colours=tints))
    return panels


def _repeat(found: SavedComparison) -> str:
    """Return the exact command."""
    saved = found.values
    words = [
        "sflam",
        "compare",
        *itertools.chain.from_iterable(("--set", str(item)) for item in saved["set"]),
    ]
    words += ["--methods", ",".join(map(str, saved["asked"])), "--seeds", str(saved["seeds"])]
    for option, values in saved["options"].items():
        words += [str(option), ",".join(f"{float(value):g}" for value in values)]
    if saved["rates"]:
        words += ["--rates", ",".join(repr(rate) for rate in saved["rates"]["grid"])]
    for target in saved["targets"]:
        if target["rule"] == "as given":
            words += ["--target", f"{target['accuracy']:g}"]
    if saved["baseline"]:
        words += ["--baseline", saved["baseline"]]
    return command([*words, "--out", f"runs/{found.name}-again"])
