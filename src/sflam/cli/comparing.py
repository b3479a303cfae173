"""``compare``: methods side by side."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from sflam import config
from sflam.cli.app import Json, Set, app, status, stderr, stdout


@app.command(
    epilog="Examples:\n\n  sflam compare job.toml --seeds 3\n\n"
    "  sflam compare job.toml --methods sflam,sfl-v1,fedlora --set network.radius_m=800 --json"
)
def compare(
    job: Annotated[
        Path | None, typer.Argument(help="A TOML job file; the bundled default without one.")
    ] = None,
    overrides: Set = None,
    methods: Annotated[str | None, typer.Option(help="Which, apart by commas; docs/simulating.md.")] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each method, from the job's seed on.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of the runs, the table and the picture.")] = Path(
        "runs/compare"
    ),
    as_json: Json = False,
) -> None:
    """Train methods side by side: same samples, seeds and simulated network; accuracy, time, energy, bytes.

    Runs that are finished are not repeated, and one that was stopped goes on. Without a network to simulate, add
    --set network.simulate=false.
    """
    wanted = config.load(job, ["network.simulate=true", *(overrides or [])])
    with status("loading"):
        from sflam import compare as comparing
        from sflam.report.comparison import comparison_table, draw_comparison

    names = methods.split(",") if methods is not None else list(comparing.DEFAULT)
    found = comparing.compare(
        wanted, out, names, seeds, told=lambda name, how: print(f"{name}: {how}", file=sys.stderr)
    )
    rows = {one.method: one.to_dict() for one in found}
    draw_comparison({one.method: one.records for one in found}, out / "comparison.png")
    (stderr if as_json else stdout).print(comparison_table(rows))
    print(f"picture: {out / 'comparison.png'}", file=sys.stderr)
    if as_json:
        print(json.dumps({"methods": rows, "seeds": seeds}))
