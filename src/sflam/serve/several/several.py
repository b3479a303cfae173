"""``sflam serve A.toml B.toml``: several jobs from one process, each a run of its own in a folder of all."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from sflam.config import Job
from sflam.errors import ConfigError, RunError
from sflam.files import from_json, replace_file, writing
from sflam.records.history import RoundRecord, read
from sflam.records.run_folder import RunFolder, numbered_folder
from sflam.serve import serve
from sflam.serve.admission import places_for, raise_file_limit
from sflam.serve.serve import Served, Serving
from sflam.serve.several.among import Among, Process
from sflam.serve.several.front import FrontDoor
from sflam.serve.several.hosted_job import ENDED, HostedJob
from sflam.serve.several.job_standing import JobStanding
from sflam.serve.several.names import JOBS, NAME, holds_several, naming, own_file
from sflam.serve.stop_signals import stopped_by_signals
from sflam.serve.trunks.trunk_wiring import servers_of
from sflam.serve.web_server import WebServer

LOOK = 0.2
"""Seconds after which the main thread looks for signals again."""


class SeveralServed:
    """Several runs and the one server in front of them.

    Args:
        folder: holds a run folder for each.
        served: name -> job that is served.
        before: name -> how a job stands that had ended before.
        serving: how they are served.
        process: what they share.
    """

    def __init__(
        self,
        folder: Path,
        served: Mapping[str, Served],
        before: Mapping[str, JobStanding],
        serving: Serving,
        process: Process,
    ) -> None:
        self.folder = folder
        self.jobs = {name: HostedJob(name, one, process.turns) for name, one in served.items()}
        self.front = FrontDoor(self.jobs, before)
        places = places_for(process.devices, raise_file_limit())
        self.server = WebServer(self.front, None, serving.listen, places=places)

    def run(self, shown: Callable[[str, RoundRecord], None] = lambda name, record: None) -> None:
        """Listen until every job has ended, failed or was stopped; SIGTERM and SIGINT stop all.

        Args:
            shown: is given the name of a job and each of its rounds, one at a time.
        """
        self.server.start()
        threads = [
            threading.Thread(target=job.run, args=(shown,), name=f"job {name}", daemon=True)
            for name, job in self.jobs.items()
        ]
        try:
            with stopped_by_signals(self.stop):
                for thread in threads:
                    thread.start()
                for thread in threads:
                    while thread.is_alive():
                        thread.join(LOOK)
        finally:
            self.stop()
            self.server.stop()
            for job in self.jobs.values():
                job.served.event_log.close()
        for job in self.jobs.values():
            if job.bug is not None:
                raise job.bug

    def stop(self) -> None:
        """Let every job that is not done stop after what is on disk."""
        for job in self.jobs.values():
            if job.state != ENDED:
                job.served.dispatch.stop()

    def standings(self) -> list[JobStanding]:
        """Return how every job stands, those that had ended before among them."""
        return self.front.standings()


def start(jobs: Mapping[str, Job], folder: Path | None, serving: Serving) -> SeveralServed:
    """Assemble jobs, one after another, and make their folders, ready to be served.

    Args:
        jobs: name -> job, two at least.
        folder: holds a run folder for each, by its name; None makes a new one in ``runs/``.
        serving: how they are served; the rosters are files beside its own, one a job.

    Raises:
        SflamError: of any of them; no run is left half-made then.
    """
    _expect_servable(jobs, serving)
    if folder is not None:
        _expect_free(folder, jobs)
    parent = folder or numbered_folder("jobs")
    process, served = Process(), dict[str, Served]()
    made = [parent / name for name in jobs if not os.path.exists(parent / name)]
    fresh = folder is None or not os.path.exists(parent)
    try:
        for name, job in jobs.items():
            with naming(name):
                served[name] = serve.start(
                    job, parent / name, _own(serving, name), among=Among(name, process)
                )
        with writing(parent, "choose another with --out"):
            replace_file(parent / JOBS, (json.dumps({"jobs": list(jobs)}) + "\n").encode())
        return SeveralServed(parent, served, {}, serving, process)
    except BaseException:
        served.clear()  # what holds their folders
        for path in made:
            shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            (parent / JOBS).unlink(missing_ok=True)
            if fresh:
                parent.rmdir()
        raise


def resume(folder: Path, serving: Serving) -> SeveralServed:
    """Go on with those runs in a folder that have not ended.

    Raises:
        SflamError: it holds none, or one of them cannot be gone on with.
    """
    names = _names_in(folder)
    runs = {name: RunFolder(folder / name) for name in names}
    for run in runs.values():
        if not os.path.exists(run.config):
            raise RunError(
                f"{folder / JOBS} names {run.path.name}, but {run.path} holds no run; put it back, or resume the "
                f"others one by one: sflam serve --resume {folder}/NAME"
            )
    jobs = {name: run.read_job() for name, run in runs.items()}
    before = {name: _ended(name, run, jobs[name]) for name, run in runs.items() if run.result.is_file()}
    left = [name for name in names if name not in before]
    if not left:
        raise RunError(f"all runs in {folder} have ended: {', '.join(names)}; there is nothing to go on with")
    _expect_servable({name: jobs[name] for name in left}, serving)
    process, served = Process(), dict[str, Served]()
    for name in left:
        with naming(name):
            served[name] = serve.resume(folder / name, _own(serving, name), among=Among(name, process))
    return SeveralServed(folder, served, before, serving, process)


def _expect_free(folder: Path, names: Iterable[str]) -> None:
    """Raise RunError where a folder holds runs, so that neither they nor the list of them is written over."""
    if holds_several(folder):
        raise RunError(
            f"folder {folder} already holds several runs; resume them with --resume {folder}, or choose another folder "
            "with --out"
        )
    for path in (folder, *(folder / name for name in names)):
        RunFolder(path).expect_free()


def _own(serving: Serving, name: str) -> Serving:
    return replace(serving, roster=own_file(serving.roster, name))


def _expect_servable(jobs: Mapping[str, Job], serving: Serving) -> None:
    """Raise an error for jobs of which one cannot be served, before anything is loaded."""
    serving.listen.check()
    problems: list[str] = []
    for name, job in jobs.items():
        if servers_of(job):
            problems.append(
                f"{name}: fleet.servers names trunk servers, which a coordinator of one job has; serve {name} by a "
                "process of its own"
            )
            continue
        try:
            with naming(name):
                _own(serving, name).check(job)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)


def _names_in(folder: Path) -> list[str]:
    path = folder / JOBS
    try:
        names = from_json(path.read_bytes())["jobs"]
        known = isinstance(names, list) and all(isinstance(one, str) and NAME.fullmatch(one) for one in names)
        if not (names and known):
            raise ValueError("no names of jobs")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path} cannot be read ({error}); resume its runs one by one: sflam serve --resume {folder}/NAME"
        ) from error
    return list(names)


def _ended(name: str, run: RunFolder, job: Job) -> JobStanding:
    """Return how a run stands that had ended before."""
    try:
        accuracy = from_json(run.result.read_bytes()).get("accuracy")
        if not (accuracy is None or isinstance(accuracy, int | float)):
            raise ValueError("accuracy is no number")
    except (OSError, ValueError, AttributeError) as error:
        raise RunError(
            f"{run.result} cannot be read ({error}); delete it and resume the run alone, which writes it anew: "
            f"sflam serve --resume {run.path}"
        ) from error
    records = read(run.history)[1]
    loss = records[-1].loss if records else None
    return JobStanding(
        name,
        ENDED,
        "",
        len(records),
        job.learn.rounds,
        0,
        job.fleet.devices,
        accuracy,
        loss,
        False,
    )
