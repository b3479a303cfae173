"""``train``, ``simulate`` and ``init``: run a job."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sflam.cli import shared
from sflam.config import Job
from sflam.errors import ConfigError
from sflam.files import writing
from sflam.learn.world.world import World
from sflam.records.run_folder import RunFolder
from sflam.run.ranks import restarted, together


@shared.command(
    "sflam train",
    "sflam train job.toml --set learn.rounds=50 --set quant.bits_up=4",
    "sflam train job.toml --plan plans/office/plan.json",
    "sflam train --resume runs/digits-nano-vit-sflam-1",
    "torchrun --nproc-per-node 4 -m sflam train job.toml --out runs/large",
)
def train(
    job: shared.JobFile = None,
    overrides: shared.Set = None,
    out: shared.RunOut = None,
    resume: shared.Resume = None,
    plan: shared.FollowedPlan = None,
    merge: shared.Merge = False,
    ranks: shared.Ranks = None,
    as_json: shared.Json = False,
) -> None:
    """Fine-tune a model cut between devices and a server.

    Without arguments: the bundled nano ViT on handwritten digits, ten devices, Dirichlet 0.5, 8 bits each way.
    """
    shared.follow_first()
    wanted = shared.run_job(job, overrides, plan=plan, out=out, resume=resume)
    with together(ranks, None if resume else wanted) as world:
        _train(wanted, out, resume, merge, as_json, world)


@shared.command(
    "sflam simulate job.toml --set plan.method=equal",
    "sflam simulate --set learn.rounds=20 --set network.bandwidth_mhz=5 --set plan.optimize='[\"bits\"]'",
    "sflam simulate --resume runs/digits-nano-vit-sflam-1",
)
def simulate(
    job: shared.JobFile = None,
    overrides: shared.Set = None,
    out: shared.RunOut = None,
    resume: shared.Resume = None,
    merge: shared.Merge = False,
    ranks: shared.Ranks = None,
    as_json: shared.Json = False,
) -> None:
    """Fine-tune as train does, over a simulated radio network, on a virtual clock.

    Every round draws the channel anew, plans bandwidth, power, clocks and, if asked, bits, trains with exactly these
    bits, and charges seconds and joules. It is train with network.simulate = true.
    """
    shared.follow_first()
    wanted = shared.run_job(job, overrides, out=out, resume=resume, first=("network.simulate=true",))
    with together(ranks, None if resume else wanted) as world:
        _train(wanted, out, resume, merge, as_json, world)


def _train(
    wanted: Job, out: Path | None, resume: Path | None, merge: bool, as_json: bool, world: World
) -> None:
    """Run a job, which was checked before seconds of imports, and report."""
    if resume is None and out and restarted() and RunFolder(out).config.is_file():
        resume = out  # a rank was lost, and torchrun started all of them again
    with shared.loading("loading model and data"):
        from sflam.report.terminal.progress import Progress
        from sflam.report.terminal.run_table import rounds_table
        from sflam.run import start as jobs

        run = jobs.resume(resume, world=world) if resume else jobs.start(wanted, out, world=world)
    shared.notes(run.notes)
    with shared.stoppable(f"go on with: sflam train --resume {run.folder.path}"):
        with Progress(run.job.learn.rounds, resumed=run.records) as progress:
            for record in run.rounds():
                progress.update(record)
    with shared.status("writing the run folder"):
        result = run.finish(merge=merge)
    table = rounds_table(
        run.records, perplexity=result.perplexity, devices=result.device_accuracy, test=result.accuracy
    )
    shared.show(as_json, table)
    if result.stopped_round is not None:
        waited = f"{run.job.learn.stop_after} evaluations without a better validation score"
        shared.remark(f"stopped after round {result.stopped_round} of {run.job.learn.rounds}: {waited}")
    if run.job.learn.keep == "best":
        numbers = f"validation accuracy {result.validation_accuracy:.1%}, test accuracy {result.accuracy:.1%}"
        shared.remark(f"kept the model of round {result.kept_round}: {numbers}, test loss {result.loss:.4f}")
    kept = run.folder.adapter.name if run.folder.adapter.is_dir() else run.folder.merged.name
    shared.remark(f"run folder: {result.run_dir} (curves.png, {kept}/, history.jsonl, ...)")
    shared.show_json(as_json, asdict(result))


@shared.command("sflam init job.toml && sflam train job.toml")
def init(
    path: Annotated[Path, typer.Argument(help="The job file to write.")] = Path("job.toml"),
) -> None:
    """Write a job file with every key, its meaning and its default."""
    from sflam.template import template

    if path.exists():
        raise ConfigError(f"{path} exists already; give another name, or remove it first")
    with writing(path, "give another path", ConfigError), path.open("x", encoding="utf-8") as file:
        file.write(template())
    print(f"wrote {path}; run it with: sflam train {path}")
