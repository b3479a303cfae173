"""What ``compare`` and ``study`` print and write: lists of runs, tables, pictures, JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sflam.cli import shared

if TYPE_CHECKING:
    from sflam.compare.comparison import Comparison
    from sflam.compare.listing import Listed, StudyShare
    from sflam.compare.rates import RateGrid
    from sflam.compare.study import Study

ListRuns = Annotated[
    bool,
    typer.Option("--list", help="Print the runs, their digests and whether they are there; train nothing."),
]
Shard = Annotated[
    str | None, typer.Option(metavar="I/N", help="Train share I of N of the runs, from 0; see --join.")
]
Only = Annotated[
    str | None,
    typer.Option(metavar="PATTERN", help="Train the runs whose line or folder has this in its name."),
]
Jobs = Annotated[int | None, typer.Option(help="Runs at once; by default as many as cores and memory allow.")]


def run(
    study: Study,
    out: Path,
    *,
    only_list: bool,
    shard: str | None,
    only: str | None,
    jobs: int | None,
    as_json: bool,
) -> None:
    """List a study, train a share of it, or train it all and show the result."""
    from sflam.compare.listing import StudyShare, listed

    share = StudyShare.parse(shard, only)
    if only_list:
        found = listed(study, out, share)
        _show_list(found, as_json)
        if study.rates is not None:
            shared.notes([f"{study.count()} runs in all: those after the grid depend on which rates win"])
    elif share.whole:
        _run_whole(study, out, jobs, as_json)
    else:
        _run_share(study, out, share, jobs, as_json)


def joined(folders: list[Path], out: Path, as_json: bool) -> None:
    """Join folders of one comparison and show its result."""
    from sflam.compare.shares import join

    study = join(folders, out)
    shared.remark(f"joined {len(folders)} folders in {out}")
    _run_whole(study, out, 1, as_json)


def _run_share(study: Study, out: Path, share: StudyShare, jobs: int | None, as_json: bool) -> None:
    from sflam.compare.listing import listed
    from sflam.compare.running import failure_lines
    from sflam.compare.shares import run_share
    from sflam.report.terminal.runs_progress import RunsProgress

    count = len(listed(study, out, share))
    with shared.stoppable("the same command goes on where the runs were"):
        with RunsProgress(count * study.job.learn.rounds, count) as shown:
            found, failures = run_share(study, out, share, jobs=jobs, on_event=shown.on_event)
    _show_list(found, as_json)
    failed = {name: failure.why for name, failure in failures.items()}
    there = sum(item.to_dict()["there"] for item in found)
    shared.remark(
        f"{there} of {len(found)} runs of this share are in {out}; with all shares there, sflam compare --join FOLDER "
        "--join FOLDER --out ALL makes the tables",
        *(f"sflam: {problem}" for problem in failure_lines(failed)),
    )
    if failed:
        raise SystemExit(1)


def _show_list(runs: list[Listed], as_json: bool) -> None:
    from sflam.report.terminal.plain_table import plain_table

    table = plain_table(["line", "seed", "digest", "run"], left=("line", "run"), wraps=("line",))
    for item in runs:
        table.add_row("\n".join(item.lines), str(item.task.job.seed), item.digest, item.state)
    shared.show(as_json, table)
    states = [item.state for item in runs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    shared.remark(f"{len(runs)} runs: {counts}" if runs else "no runs")
    shared.show_json(as_json, {"runs": [item.to_dict() for item in runs]})


def _run_whole(study: Study, out: Path, jobs: int | None, as_json: bool) -> None:
    from sflam.compare.comparison import run_study
    from sflam.report.terminal.runs_progress import RunsProgress

    runs = study.count()
    with shared.stoppable("the same command goes on where the runs were"):
        with RunsProgress(runs * study.job.learn.rounds, runs) as shown:
            found = run_study(study, out, jobs=jobs, on_event=shown.on_event)
    found.save(out)
    _show(found, out, runs, as_json)


def _show(found: Comparison, out: Path, runs: int, as_json: bool) -> None:
    """Print tables and JSON of a comparison, and draw its pictures."""
    from sflam.compare.variants import AXES
    from sflam.report.charts.figure import save_all
    from sflam.report.charts.sweeps import draw_sweeps
    from sflam.report.export import export_lines
    from sflam.report.terminal.comparison_table import (
        baseline_table,
        comparison_table,
        device_table,
        target_table,
    )
    from sflam.report.terminal.rate_table import rate_table

    result = found.to_dict()
    rows, study = result["methods"], found.study
    shared.show(as_json, comparison_table(rows, rates=study.rates is not None))
    if result["rates"]:
        shared.show(as_json, rate_table(result["rates"], rows))
    targets = [
        target_table(rows, target.accuracy, target.rule, place) for place, target in enumerate(found.targets)
    ]
    against = (
        [baseline_table(rows, study.baseline)]
        if study.baseline in rows and rows.keys() - {study.baseline}
        else []
    )
    shared.show(as_json, *targets, *against, device_table(rows))
    lines = {name: method.records for name, method in found.methods.items()}
    export_lines(lines, rows, result["targets"], out, baseline=study.baseline)
    pictures = [out / "comparison.png"]
    if found.sweeps:
        sweeps = {
            axis: {name: [(point["value"], point) for point in line] for name, line in of_axis.items()}
            for axis, of_axis in result["sweeps"].items()
        }
        labels = {axis: AXES[axis].label for axis in sweeps}
        save_all(draw_sweeps(sweeps, labels=labels, methods=rows, seeds=study.seeds), out / "sweeps")
        pictures.append(out / "sweeps.png")
    shown = ", ".join(map(str, pictures))
    beside = "beside them .pdf, .svg, .csv, tables.tex, tables.md, results.csv"
    shared.remark(f"pictures: {shown}; {beside}; a page of it all: sflam report {out}")
    shared.notes(_notes(found.grid))
    shared.show_json(as_json, result)
    shared.remark(*(f"sflam: {problem}" for problem in found.problems))
    if found.failed:
        missing = ", ".join(item for item in study.methods if item not in found.methods)
        left = f"; left out: {missing}" if missing else ""
        shared.remark(
            f"sflam: {len(found.failed)} of {runs} runs failed{left}; the same command tries them again, but for those "
            "that diverged"
        )
        raise SystemExit(1)


def _notes(grid: RateGrid | None) -> list[str]:
    """Return notes on the learning rates: which diverged, and whose best is at an end of the grid."""
    if grid is None:
        return []
    found = [f"{name} loses at rate {item.rate:g}: {item.why.partition(';')[0]}" for name, item in grid.lost]
    if ends := grid.at_an_end:
        listed = ", ".join(f"{name} ({rate:g})" for name, rate in ends.items())
        found.append(f"best at an end of --rates, where a wider grid may find a better one: {listed}")
    return found
