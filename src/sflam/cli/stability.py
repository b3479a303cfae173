"""``stability``: how much a tuned model depends on any one sample, measured beside its bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sflam import config
from sflam.cli import shared
from sflam.errors import ConfigError


@shared.command(
    "sflam stability --layers 1,3,6 --samples 100",
    "sflam stability job.toml --draws 5 --replacements 16 --out runs/stability --json",
)
def stability(
    job: shared.JobFile = None,
    overrides: shared.Set = None,
    layers: Annotated[
        str | None, typer.Option(help="Numbers of first layers to tune, e.g. 1,3,6; by default all.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Training samples n.")] = 100,
    replacements: Annotated[int, typer.Option(help="Samples replaced, one retraining each.")] = 8,
    draws: Annotated[int, typer.Option(help="Independent training sets; gives the standard error.")] = 3,
    steps: Annotated[int, typer.Option(help="Optimiser steps of a training.")] = 60,
    out: Annotated[Path | None, typer.Option(help="Folder for stability.json and stability.png.")] = None,
    as_json: shared.Json = False,
) -> None:
    """Train again with one sample replaced, all else equal, and measure how far its loss moves.

    For each number of tuned layers, two bounds on the instability stand beside the measurement.
    """
    wanted = config.load(job, overrides or [])
    try:
        counts = tuple(int(word) for word in layers.split(",")) if layers else ()
    except ValueError:
        raise ConfigError(f"--layers is {layers!r}; separate numbers by commas, e.g. 1,3,6") from None
    with shared.status("loading model and data"):
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
        for item in measure(wanted, asked, lambda done, depth: tally.count(done, trainings(asked, depth))):
            tally.write(f"{item.layers} layers: measured {item.measured:.3g} nats, rho {item.rho:.3g}")
            made.append(item)
    learn = wanted.learn
    found = judge(made, decay=learn.weight_decay if learn.optimizer == "sgd" else 0.0).to_dict()
    title = f"{Path(wanted.model.name).name} on {Path(wanted.data.name).name}, n = {samples}"
    shared.show(as_json, stability_table(found, title))
    if out:
        with writing(out, "give another --out", ConfigError):
            out.mkdir(parents=True, exist_ok=True)
            replace_file(out / "stability.json", (json.dumps(found, indent=2) + "\n").encode())
        save(draw_stability(found, title=title), out / "stability.png")
        shared.remark(f"wrote stability.json, stability.png to {out}")
    shared.show_json(as_json, found)
