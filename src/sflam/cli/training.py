"""``train``, ``simulate`` and ``init``: run a job."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sflam import config
from sflam.cli.app import Json, Set, app, status, stderr, stdout
from sflam.errors import ConfigError


@app.command(
    epilog="Examples:\n\n  sflam train\n\n  sflam train job.toml --set learn.rounds=50 --set quant.bits_up=4\n\n"
    "  sflam train job.toml --plan plans/office/plan.json\n\n"
    "  sflam train --resume runs/digits-nano-vit-sflam-1"
)
def train(
    job: Annotated[
        Path | None, typer.Argument(help="A TOML job file; the bundled default without one.")
    ] = None,
    overrides: Set = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to write; runs/... by default.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Run folder to go on with after a crash.")] = None,
    plan: Annotated[
        str | None, typer.Option(help="Follow a plan.json of sflam plan, or computed: plan now.")
    ] = None,
    merge: Annotated[bool, typer.Option(help="Also write the merged model.")] = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a model cut between devices and a server.

    Without arguments: the bundled nano ViT on handwritten digits, ten devices, Dirichlet 0.5, 8 bits each way.
    """
    planned = [] if plan is None else [f"fleet.plan={config.toml_value(plan)}"]
    _train(job, [*(overrides or []), *planned], out, resume, merge, as_json)


@app.command(
    epilog="Examples:\n\n  sflam simulate job.toml --set plan.method=equal\n\n"
    "  sflam simulate --set learn.rounds=20 --set network.bandwidth_mhz=5 --set plan.optimize='[\"bits\"]'\n\n"
    "  sflam simulate --resume runs/digits-nano-vit-sflam-1"
)
def simulate(
    job: Annotated[
        Path | None, typer.Argument(help="A TOML job file; the bundled default without one.")
    ] = None,
    overrides: Set = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to write; runs/... by default.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Run folder to go on with after a crash.")] = None,
    merge: Annotated[bool, typer.Option(help="Also write the merged model.")] = False,
    as_json: Json = False,
) -> None:
    """Fine-tune as train does, over a simulated radio network, on a virtual clock.

    Every round draws the channel anew, plans bandwidth, power, clocks and, if asked, bits, trains with exactly these
    bits, and charges seconds and joules. It is train with network.simulate = true.
    """
    _train(job, overrides or [], out, resume, merge, as_json, ["network.simulate=true"])


def _train(
    job: Path | None,
    overrides: list[str],
    out: Path | None,
    resume: Path | None,
    merge: bool,
    as_json: bool,
    first: Sequence[str] = (),
) -> None:
    """Run a job and tell how it went; ``first`` are overrides of the command itself."""
    if resume and (job or overrides or out):
        raise ConfigError("--resume goes on with a run as it was; leave out the job file, --set and --out")
    wanted = config.load(job, [*first, *overrides])  # a typo is told before seconds of imports
    with status("loading model and data"):
        from sflam.report.terminal.progress import Progress
        from sflam.report.terminal.run_table import rounds_table
        from sflam.run import run as jobs

        run = jobs.resume(resume) if resume else jobs.start(wanted, out)
    for note in run.notes:
        print(f"note: {note}", file=sys.stderr)
    try:
        with Progress(run.job.learn.rounds, resumed=run.records) as progress:
            for record in run.rounds():
                progress.update(record)
    except KeyboardInterrupt:
        print(f"stopped; go on with: sflam train --resume {run.folder.path}", file=sys.stderr)
        raise SystemExit(130) from None
    with status("writing the run folder"):
        result = run.finish(merge=merge)
    (stderr if as_json else stdout).print(
        rounds_table(run.records, perplexity=result.perplexity, devices=result.device_accuracy)
    )
    if run.job.learn.keep == "best":
        print(
            f"kept the model of round {result.kept_round}: accuracy {result.accuracy:.1%}, test loss {result.loss:.4f}",
            file=sys.stderr,
        )
    kept = run.folder.adapter.name if run.folder.adapter.is_dir() else run.folder.merged.name
    print(f"run folder: {result.run_dir} (curves.png, {kept}/, history.jsonl, ...)", file=sys.stderr)
    if as_json:
        print(json.dumps(asdict(result)))


@app.command(epilog="Example:\n\n  sflam init job.toml && sflam train job.toml")
def init(
    path: Annotated[Path, typer.Argument(help="The job file to write.")] = Path("job.toml"),
) -> None:
    """Write a job file that says every key, what it means, and its default."""
    from sflam.template import template

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template())
    except FileExistsError:
        raise ConfigError(f"{path} exists already; give another name, or remove it first") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}); give another path") from error
    print(f"wrote {path}; run it with: sflam train {path}")
