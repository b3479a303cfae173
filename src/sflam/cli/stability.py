"""``stability``: how much a tuned model hangs on any one sample, measured beside its bounds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from sflam import config
from sflam.cli.shared import Json, Set, app, status, stderr, stdout
from sflam.errors import ConfigError


@app.command(
    epilog="Examples:\n\n  sflam stability --layers 1,3,6 --samples 100\n\n"
    "  sflam stability job.toml --draws 5 --replacements 16 --out runs/stability --json"
)
def stability(
    job: Annotated[
        Path | None, typer.Argument(help="A TOML job file; the bundled default without one.")
    ] = None,
    overrides: Set = None,
    layers: Annotated[
        str | None, typer.Option(help="How many first layers to tune: 1,3,6; all counts.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Training samples n.")] = 100,
    replacements: Annotated[int, typer.Option(help="Samples replaced, one retraining each.")] = 8,
    draws: Annotated[int, typer.Option(help="Independent training sets; gives the standard error.")] = 3,
    steps: Annotated[int, typer.Option(help="Optimiser steps of a training.")] = 60,
    out: Annotated[Path | None, typer.Option(help="Folder for stability.json and stability.png.")] = None,
    as_json: Json = False,
) -> None:
    """Train again with one sample replaced, all else equal, and see how far its loss moves.

    The first layers are tuned, more and more of them; two bounds on the instability stand beside the measurement.
    """
    wanted = config.load(job, overrides or [])
    try:
        counts = tuple(int(word) for word in layers.split(",")) if layers else ()
    except ValueError:
        raise ConfigError(f"--layers is {layers!r}; give numbers apart by commas, as in 1,3,6") from None
    with status("loading model and data"):
        from sflam.files import replace_file, writing
        from sflam.report.charts.figure import save
        from sflam.report.charts.stability import draw_stability
        from sflam.report.terminal.stability_table import stability_table
        from sflam.report.terminal.tally import Tally
        from sflam.stability.bounds import judge
        from sflam.stability.measure import Asked, measure, trainings

    asked = Asked(layers=counts, samples=samples, replacements=replacements, draws=draws, steps=steps)
    made = []
    with Tally("training") as tally:
        for one in measure(wanted, asked, lambda done, depth: tally.count(done, trainings(asked, depth))):
            tally.write(f"{one.layers} layers: measured {one.measured:.3g} nats, rho {one.rho:.3g}")
            made.append(one)
    learn = wanted.learn
    found = judge(made, decay=learn.weight_decay if learn.optimizer == "sgd" else 0.0).to_dict()
    title = f"{Path(wanted.model.name).name} on {Path(wanted.data.name).name}, n = {samples}"
    (stderr if as_json else stdout).print(stability_table(found, title))
    if out:
        with writing(out, "give another --out", ConfigError):
            out.mkdir(parents=True, exist_ok=True)
            replace_file(out / "stability.json", (json.dumps(found, indent=2) + "\n").encode())
        save(draw_stability(found, title=title), out / "stability.png")
        print(f"wrote stability.json, stability.png to {out}", file=sys.stderr)
    if as_json:
        print(json.dumps(found))
