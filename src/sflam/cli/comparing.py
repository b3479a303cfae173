"""``compare``: methods, allocators and settings side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sflam import config
from sflam.cli import shared

if TYPE_CHECKING:
    from sflam.compare.rates import RateGrid


@shared.command(
    "sflam compare job.toml --seeds 3",
    "sflam compare job.toml --methods sflam,sflam+equal,fedlora --target 0.9 --set network.radius_m=800 --json",
    "sflam compare job.toml --methods sflam --bits 2,4,8 --alphas 0.1,0.5,1 --weights 0.1,0.5,0.9",
    "sflam compare job.toml --seeds 3 --rates 0.001,0.003,0.01",
    "sflam compare job.toml --methods sflam --vary learn.lr=0.001,0.003 --vary model.cut=1,2,4",
)
def compare(
    job: shared.JobFile = None,
    overrides: shared.Set = None,
    methods: Annotated[
        str | None,
        typer.Option(help="METHOD or METHOD+ALLOCATOR, perhaps followed by SECTION.KEY=VALUE; by commas."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each method, with seeds from the job's own on.")] = 1,
    rates: Annotated[
        str | None, typer.Option(help="Learning rates to choose from, by validation score, e.g. 0.001,0.003.")
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="Accuracy whose cost is reported; by default 95 % of the best.")
    ] = None,
    bits: Annotated[str | None, typer.Option(help="Also sweep the bits at the cut, e.g. 2,4,8.")] = None,
    alphas: Annotated[str | None, typer.Option(help="Also sweep the skew of the data, e.g. 0.1,1.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Also sweep the weight of time against energy, e.g. 0.1,0.5,0.9.")
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SECTION.KEY=V,V",
            help="Every method at each of these values of any key; may be repeated.",
        ),
    ] = None,
    zip_values: Annotated[
        bool, typer.Option("--zip", help="Take the values of all --vary together, not in every combination.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(help="Runs at once; by default as many as cores and memory allow.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of runs, table, pictures.")] = Path("runs/compare"),
    as_json: shared.Json = False,
) -> None:
    """Train methods side by side: same samples, seeds and simulated network; accuracy, time, energy, bytes.

    Runs that are finished are not repeated, and one that was stopped goes on. Exit code 1 where some runs failed: their
    methods are left out. Without a network to simulate, add --set network.simulate=false.
    """
    wanted = config.load(job, ["network.simulate=true", *(overrides or [])])
    axes = {"bits": ("--bits", bits), "alpha": ("--alphas", alphas), "weight": ("--weights", weights)}
    sweeps = {axis: shared.numbers(name, text) for axis, (name, text) in axes.items() if text is not None}
    grid = None if rates is None else shared.numbers("--rates", rates)
    with shared.status("loading"):
        from sflam.compare import comparison
        from sflam.compare.lines import parted, varied
        from sflam.compare.variants import AXES, DEFAULT
        from sflam.report.charts.comparison import draw_comparison
        from sflam.report.charts.figure import save
        from sflam.report.charts.sweeps import draw_sweeps
        from sflam.report.terminal.comparison_table import comparison_table, device_table, target_table
        from sflam.report.terminal.rate_table import rate_table
        from sflam.report.terminal.runs_progress import RunsProgress

    names = parted(methods) if methods is not None else list(DEFAULT)
    names = varied(names, vary or [], together=zip_values)
    runs = comparison.count_runs(wanted, names, seeds, sweeps, grid)
    with shared.stoppable("the same command goes on where the runs were"):
        with RunsProgress(runs * wanted.learn.rounds, runs) as shown:
            found = comparison.compare(
                wanted,
                out,
                names,
                seeds,
                sweeps=sweeps,
                rates=grid,
                target=target,
                jobs=jobs,
                on_event=shown.on_event,
            )
    found.save(out)
    result = found.to_dict()
    rows = result["methods"]
    shared.show(as_json, comparison_table(rows, rates=grid is not None))
    if result["rates"]:
        shared.show(as_json, rate_table(result["rates"], rows))
    shared.show(as_json, target_table(rows, found.target, found.rule), device_table(rows))
    figures = {
        "comparison.png": draw_comparison({name: method.records for name, method in found.methods.items()})
    }
    if sweeps:
        lines = {
            axis: {name: [(point["value"], point) for point in line] for name, line in of_axis.items()}
            for axis, of_axis in result["sweeps"].items()
        }
        labels = {axis: AXES[axis].label for axis in lines}
        figures["sweeps.png"] = draw_sweeps(lines, labels=labels, methods=rows, seeds=seeds)
    for name, figure in figures.items():
        save(figure, out / name)
    pictures = ", ".join(str(out / name) for name in figures)
    shared.remark(f"pictures: {pictures}; a page of it all: sflam report {out}")
    shared.notes(_notes(found.grid))
    shared.show_json(as_json, result)
    shared.remark(*(f"sflam: {problem}" for problem in found.problems))
    if found.failed:
        missing = ", ".join(item for item in names if item not in found.methods)
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
