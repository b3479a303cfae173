"""``serve`` with several jobs: one process, one address, a run folder for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sflam.cli import shared
from sflam.errors import ConfigError, RunsError

if TYPE_CHECKING:
    from sflam.config import Job
    from sflam.records.history import RoundRecord
    from sflam.serve.serve import Serving


def jobs_of(files: Sequence[Path], overrides: list[str] | None, *, plan: str | None) -> dict[str, Job]:
    """Return name -> job of each file; raises ConfigError, which names the job that cannot be."""
    from sflam.serve.several.names import named_jobs, naming

    jobs = {}
    for name, file in named_jobs(files).items():
        with naming(name):
            jobs[name] = shared.run_job(file, overrides, plan=plan)
    return jobs


def serve_several(
    jobs: Mapping[str, Job],
    *,
    out: Path | None,
    resume: Path | None,
    serving: Serving,
    as_json: bool,
) -> None:
    """Serve several jobs, by their names, or go on with those in a folder, until all are done.

    Raises:
        RunsError: some have failed; the others were served to their ends.
    """
    from sflam.report.terminal.jobs_table import jobs_table
    from sflam.report.terminal.progress import Progress
    from sflam.serve.several import several
    from sflam.serve.several.hosted_job import FAILED, STOPPED
    from sflam.serve.several.names import own_file

    if resume is None:
        made = several.start(jobs, out, serving)
    else:
        made = several.resume(resume, serving)
    address = serving.listen.url(made.server.port)
    for name, job in made.jobs.items():
        shared.notes(f"{name}: {note}" for note in job.served.run.assembly.notes)
    shared.remark(f"listening on {address}, {len(made.jobs)} jobs, folder {made.folder}")
    for name in made.jobs:
        shared.remark(
            f"{name}: devices join {address}/jobs/{name}, roster {own_file(serving.roster, name)}, run folder "
            f"{made.folder / name}"
        )
        if serving.browser:
            shared.remark(
                f"{name}: browsers join by the link that sflam enrol prints with --link and this address"
            )
    with ExitStack() as stack:
        shown = {
            name: stack.enter_context(
                Progress(job.served.board.rounds, resumed=job.served.run.records, label=name)
            )
            for name, job in made.jobs.items()
        }

        def show(name: str, record: RoundRecord) -> None:
            shown[name].update(record)

        made.run(show)
    standings = made.standings()
    folders = {one.name: str(made.folder / one.name) for one in standings}
    rows = [(one.name, one.state, one.done, one.rounds, one.accuracy, folders[one.name]) for one in standings]
    shared.show(as_json, jobs_table(rows))
    for one in standings if as_json else ():
        own = made.jobs.get(one.name)
        found = (
            asdict(own.result) if own and own.result else {"run_dir": folders[one.name], "rounds": one.done}
        )
        shared.show_json(True, {"job": one.name, "state": one.state, "error": one.error or None} | found)
    failed = [f"{one.name}: {one.error}" for one in standings if one.state == FAILED]
    if failed or any(one.state == STOPPED for one in standings):
        shared.remark(f"go on with: sflam serve --resume {made.folder}")
    if failed:
        raise RunsError(failed)
    if any(one.state == STOPPED for one in standings):
        raise SystemExit(130)


def expect_one_process(ranks: int | None, size: int, to_round: int | None, folder: Path | None) -> None:
    """Raise ConfigError for options that are of one job alone."""
    problems = []
    if ranks is not None or size > 1:
        problems.append(
            "--ranks, and torchrun, lend memory to one job; serve a job with ranks by a process of its own"
        )
    if to_round is not None:
        problems.append(
            f"--round goes back in one run: sflam serve --resume {folder or 'FOLDER'}/NAME --round {to_round}"
        )
    if problems:
        raise ConfigError(problems)
