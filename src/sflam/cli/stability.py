"""``stability``: how much a tuned model depends on any one sample, measured beside its bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sflam import config
from sflam.cli import shared
from sflam.errors import ConfigError

AS_IS = "job"


@shared.command(
    "sflam stability --layers 1,3,6 --samples 100",
    "sflam stability job.toml --draws 5 --replacements 16 --out runs/stability --json",
)
def stability(
    job: shared.JobFile = None,
    overrides: shared.Set = None,
    layers: Annotated[
        str | None,
        typer.Option(
            help="How many first layers to tune, e.g. 1,3,6, or last ones, e.g. -1,-3; by default 1 to all. "
            "'job' measures the job as it, or its plan, is."
        ),
    ] = None,
    samples: Annotated[int, typer.Option(help="Training samples n.")] = 100,
    replacements: Annotated[int, typer.Option(help="Samples replaced, one retraining each.")] = 8,
    draws: Annotated[int, typer.Option(help="Independent training sets; gives the standard error.")] = 3,
    rounds: Annotated[int, typer.Option(help="Rounds of a training; 0 takes learn.rounds.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for stability.json and stability.png.")] = None,
    as_json: shared.Json = False,
) -> None:
    """Train again with one sample replaced, all else equal, and measure how far its loss moves.

    It is the training of sflam train: split, quantized and shared out as the job is. For each number of tuned layers,
    two bounds on the instability stand beside the measurement.
    """
    wanted = config.load(job, overrides or [])
    try:
        as_is = layers == AS_IS
        counts = () if as_is or not layers else tuple(int(word) for word in layers.split(","))
    except ValueError:
        raise ConfigError(
            f"--layers is {layers!r}; separate numbers by commas, e.g. 1,3,6, or give {AS_IS}"
        ) from None
    with shared.status("loading model and data"):
        from sflam.report.charts.stability import draw_stability
        from sflam.report.terminal.stability_table import stability_table
        from sflam.report.terminal.tally import Tally
        from sflam.stability.bounds import judge
        from sflam.stability.measure import Asked, measure, trainings

    asked = Asked(
        layers=counts, as_is=as_is, samples=samples, replacements=replacements, draws=draws, rounds=rounds
    )
    made = []
    with Tally("training") as tally:
        for item in measure(wanted, asked, lambda done, depth: tally.count(done, trainings(asked, depth))):
            tally.write(f"{item.layers:g} layers: measured {item.measured:.3g} nats, rho {item.rho:.3g}")
            made.append(item)
    learn = wanted.learn
    found = judge(made, decay=learn.weight_decay if learn.optimizer == "sgd" else 0.0).to_dict()
    title = f"{Path(wanted.model.name).name} on {Path(wanted.data.name).name}, n = {samples}"
    shared.show(as_json, stability_table(found, title))
    if out:
        shared.write(out, "stability", found, draw_stability(found, title=title), ConfigError)
    shared.show_json(as_json, found)
