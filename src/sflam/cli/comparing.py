"""``compare``: methods, allocators and settings side by side."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sflam import config
from sflam.cli.shared import Json, Set, app, status, stderr, stdout
from sflam.errors import ConfigError

if TYPE_CHECKING:
    from sflam.compare.rates import RateGrid


@app.command(
    epilog="Examples:\n\n  sflam compare job.toml --seeds 3\n\n"
    "  sflam compare job.toml --methods sflam,sflam+equal,fedlora --target 0.9 --set network.radius_m=800 --json\n\n"
    "  sflam compare job.toml --methods sflam --bits 2,4,8 --alphas 0.1,0.5,1 --weights 0.1,0.5,0.9\n\n"
    "  sflam compare job.toml --seeds 3 --rates 0.001,0.003,0.01"
)
def compare(
    job: Annotated[
        Path | None, typer.Argument(help="A TOML job file; the bundled default without one.")
    ] = None,
    overrides: Set = None,
    methods: Annotated[
        str | None,
        typer.Option(help="Which, apart by commas; METHOD or METHOD+ALLOCATOR: docs/how-to/compare.md."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each method, from the job's seed on.")] = 1,
    rates: Annotated[
        str | None,
        typer.Option(
            help="Learning rates to try each method at on the first seed, as 0.001,0.003: its best is used."
        ),
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(help="Accuracy whose cost is told, as 0.9; 95 % of the best method's by default."),
    ] = None,
    bits: Annotated[str | None, typer.Option(help="Also sweep the bits at the cut, as 2,4,8.")] = None,
    alphas: Annotated[str | None, typer.Option(help="Also sweep the skew of the data, as 0.1,1.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Also sweep the weight of time against energy, as 0.1,0.5,0.9.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Runs at once; as many as cores and memory allow by default.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs, the table and the pictures.")] = Path(
        "runs/compare"
    ),
    as_json: Json = False,
) -> None:
    """Train methods side by side: same samples, seeds and simulated network; accuracy, time, energy, bytes.

    Runs that are finished are not repeated, and one that was stopped goes on. Exit code 1 where some runs failed: their
    methods are left out. Without a network to simulate, add --set network.simulate=false.
    """
    wanted = config.load(job, ["network.simulate=true", *(overrides or [])])
    said = {"bits": ("--bits", bits), "alpha": ("--alphas", alphas), "weight": ("--weights", weights)}
    sweeps = {axis: _numbers(option, text) for axis, (option, text) in said.items() if text is not None}
    grid = None if rates is None else _numbers("--rates", rates)
    with status("loading"):
        from sflam.compare import comparison
        from sflam.compare.variants import AXES, DEFAULT
        from sflam.report.charts.comparison import draw_comparison
        from sflam.report.charts.figure import save
        from sflam.report.terminal.comparison_table import comparison_table, device_table, target_table
        from sflam.report.terminal.rate_table import rate_table
        from sflam.report.terminal.runs_progress import RunsProgress

    names = methods.split(",") if methods is not None else list(DEFAULT)
    runs = comparison.count_runs(wanted, names, seeds, sweeps, grid)
    try:
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
                heard=shown.heard,
            )
    except KeyboardInterrupt:
        print("stopped; the same command goes on where the runs were", file=sys.stderr)
        raise SystemExit(130) from None
    found.save(out)
    told = found.to_dict()
    screen = stderr if as_json else stdout
    screen.print(comparison_table(told["methods"], rates=grid is not None))
    if told["rates"]:
        screen.print(rate_table(told["rates"], told["methods"]))
    screen.print(target_table(told["methods"], found.target, found.rule))
    screen.print(device_table(told["methods"]))
    figure = draw_comparison({name: one.records for name, one in found.methods.items()})
    save(figure, out / "comparison.png")
    pictures = [str(out / "comparison.png")]
    if sweeps:
        from sflam.report.charts.sweeps import draw_sweeps

        lines = {
            axis: {name: [(point["value"], point) for point in line] for name, line in each.items()}
            for axis, each in told["sweeps"].items()
        }
        labels = {axis: AXES[axis].label for axis in lines}
        figure = draw_sweeps(lines, labels=labels, methods=told["methods"], seeds=seeds)
        save(figure, out / "sweeps.png")
        pictures.append(str(out / "sweeps.png"))
    print(f"pictures: {', '.join(pictures)}; a page of it all: sflam report {out}", file=sys.stderr)
    for note in _notes(found.grid):
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        print(json.dumps(told))
    for problem in found.problems:
        print(f"sflam: {problem}", file=sys.stderr)
    if found.failed:
        left = "; left out: " + ", ".join(one for one in names if one not in found.methods)
        print(
            f"sflam: {len(found.failed)} of {runs} runs failed{left if len(found.methods) < len(names) else ''}; the "
            "same command tries them again, but for those that diverged",
            file=sys.stderr,
        )
        raise SystemExit(1)


def _notes(grid: RateGrid | None) -> list[str]:
    """Return what of the learning rates somebody should know: which were lost, and whose best is at an end."""
    if grid is None:
        return []
    found = [f"{name} loses at rate {one.rate:g}: {one.why.partition(';')[0]}" for name, one in grid.lost]
    if ends := grid.at_an_end:
        said = ", ".join(f"{name} ({rate:g})" for name, rate in ends.items())
        found.append(f"best at an end of --rates, where a wider grid may find a better one: {said}")
    return found


def _numbers(option: str, text: str) -> list[float]:
    """Return the numbers of an option; raises ConfigError naming what is none."""
    found = []
    for word in text.split(","):
        try:
            found.append(float(word))
        except ValueError:
            raise ConfigError(f"{option} holds {word!r}; give numbers apart by commas, as 0.1,0.5") from None
    return found
