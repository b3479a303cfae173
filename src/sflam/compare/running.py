"""Runs what is not finished yet: one after another here, or several at once, each in a process of its own.

A run that fails stops no other. One that diverged leaves a file with the reason and is not tried again: it would
diverge again. Workers leave when their standard input closes, which happens however this process ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass

from sflam.compare.capacity import cores, jobs_that_fit
from sflam.compare.charged_anew import charge_anew, trained_once
from sflam.compare.waiting import OnEvent, Waiting
from sflam.config import to_toml
from sflam.errors import ConfigError, DivergedError, SflamError
from sflam.files import replace_file
from sflam.records.run_folder import RunFolder
from sflam.registry import own_modules

DIVERGED = "diverged.txt"
"""What a run that diverged leaves in its folder: why. Without the file it is tried again."""


@dataclass(frozen=True)
class Failure:
    """Why a run did not finish.

    Attributes:
        why: one line.
        diverged: training left the finite numbers.
    """

    why: str
    diverged: bool = False


def ignore_event(name: str, what: str, rounds: int) -> None:
    """Ignore an event."""


def expect_jobs(jobs: int | None) -> None:
    """Raise ConfigError where so many runs at once are none, or need what only this process has."""
    if jobs is not None and jobs < 1:
        raise ConfigError(f"--jobs is {jobs}; at least one is needed")
    own = own_modules().get("__main__", [])
    if jobs is not None and jobs > 1 and own:
        named = " and ".join([*([", ".join(own[:-1])] if own[1:] else []), own[-1]])
        raise ConfigError(
            f"--jobs is {jobs}, but {named} {'are' if own[1:] else 'is'} registered by the program itself, which the "
            "processes of several runs do not run; give --jobs 1, or register them in a module that the program imports"
        )


def run_all(
    tasks: Sequence[Waiting], jobs: int | None, lock: int | None, on_event: OnEvent = ignore_event
) -> dict[str, Failure]:
    """Run every task that has no result yet, and return which failed: name -> why.

    Args:
        tasks: in the order they are begun.
        jobs: runs at once; 1 runs them in this process, None takes what cores and memory allow.
        lock: descriptor that every worker holds as well; see ``sflam.locks``.
        on_event: see ``OnEvent``.
    """
    expect_jobs(jobs)
    failed = {}
    for task in tasks:
        folder = RunFolder(task.path)
        if folder.result.is_file():
            on_event(task.name, "finished", task.job.learn.rounds)
        elif why := _divergence(task):
            failed[task.name] = Failure(why, True)
            on_event(task.name, "diverged", task.job.learn.rounds)
    once = trained_once([task for task in tasks if task.name not in failed])
    failed |= _train(once.first, jobs, lock, on_event)
    return failed | _train(charge_anew(once.rest, on_event), jobs, lock, on_event)


def _train(
    tasks: Sequence[Waiting], jobs: int | None, lock: int | None, on_event: OnEvent
) -> dict[str, Failure]:
    """Train the runs, and return which failed."""
    most = jobs_that_fit([task.job for task in tasks]) if jobs is None else jobs
    most = min(most, len(tasks))
    if most > 1:
        return _run_apart(tasks, most, lock, on_event)
    failed = {}
    for task in tasks:
        try:
            run_here(task, on_event)
        except SflamError as error:
            failed[task.name] = failure_of(error)
            _report_failure(task, failed[task.name], on_event)
    return failed


def failure_lines(failed: Mapping[str, str]) -> list[str]:
    """Return a line for every reason why runs failed."""
    by_reason: dict[str, list[str]] = {}
    for name, why in failed.items():
        by_reason.setdefault(why, []).append(name)
    return [
        f"run{'s' * (len(names) > 1)} {', '.join(names[:4])}"
        f"{f' and {len(names) - 4} more' if len(names) > 4 else ''}: {why}"
        for why, names in by_reason.items()
    ]


def failure_of(error: SflamError) -> Failure:
    """Return an error of a run as one line."""
    return Failure(" ".join(str(error).split()), isinstance(error, DivergedError))


def run_here(task: Waiting, on_event: OnEvent) -> None:
    """Run a task in this process, from where it was stopped if it was.

    Raises:
        SflamError: as the run does; where it diverged, its folder remembers.
    """
    from sflam.run import start as runs
    from sflam.run.contents import at_places_of

    folder = RunFolder(task.path)
    resumed = folder.config.is_file()
    if resumed:
        folder.move(at_places_of(folder.read_job(), task.job))
    begun = runs.resume(task.path) if resumed else runs.start(task.job, task.path)
    on_event(task.name, "resumed" if resumed else "started", len(begun.records))
    try:
        for record in begun.rounds():
            on_event(task.name, "round", record.round + 1)
    except DivergedError as error:
        with suppress(OSError):  # then it is only tried again
            replace_file(task.path / DIVERGED, (failure_of(error).why + "\n").encode())
        raise
    begun.finish()
    on_event(task.name, "done", task.job.learn.rounds)  # a run that ended early has none left to do


def _divergence(task: Waiting) -> str:
    """Return why a run diverged when it was tried before, or nothing."""
    try:
        return " ".join((task.path / DIVERGED).read_text(encoding="utf-8").split())
    except (OSError, ValueError):
        return ""


def _report_failure(task: Waiting, failure: Failure, on_event: OnEvent) -> None:
    on_event(task.name, "diverged" if failure.diverged else "failed", task.job.learn.rounds)


def _run_apart(
    tasks: Sequence[Waiting], jobs: int, lock: int | None, on_event: OnEvent
) -> dict[str, Failure]:
    failed: dict[str, Failure] = {}
    reporting, stopping = threading.Lock(), threading.Event()
    asked = {"modules": list(own_modules()), "search": sys.path}
    workers: set[subprocess.Popen[str]] = set()
    environment = dict(os.environ)
    environment.setdefault(
        "OMP_NUM_THREADS", str(max(1, cores() // jobs))
    )  # a pool each would fight over the cores

    def run_apart(task: Waiting) -> None:
        if stopping.is_set():
            return
        with tempfile.TemporaryFile("w+") as errors:
            worker = subprocess.Popen(
                [sys.executable, "-m", "sflam.compare.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                pass_fds=() if lock is None else (lock,),
            )
            workers.add(worker)
            assert worker.stdin and worker.stdout
            problem, diverged = "", False
            try:
                with suppress(
                    BrokenPipeError
                ):  # it ended before it read its task; its last line gives the reason
                    worker.stdin.write(
                        json.dumps(asked | {"path": str(task.path), "job": to_toml(task.job)}) + "\n"
                    )
                    worker.stdin.flush()
                for line in worker.stdout:
                    event = json.loads(line)
                    problem, diverged = event.get("problem", problem), event.get("diverged", diverged)
                    if "what" in event:
                        with reporting:
                            on_event(task.name, event["what"], event["rounds"])
                worker.wait()  # on its way out: closing its input now would look as if we were gone
            finally:
                _close(worker)
                workers.discard(worker)
            if worker.returncode and not stopping.is_set():
                errors.seek(0)
                last = errors.read().strip().rpartition("\n")[2]
                with reporting:
                    failed[task.name] = Failure(problem or _ended(worker.returncode, last), diverged)
                    _report_failure(task, failed[task.name], on_event)

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(run_apart, task) for task in tasks]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:  # what is raised here is no run's fault
                if future.done():
                    future.result()
        finally:
            stopping.set()
            for worker in list(workers):
                _let_go(worker)
    return {task.name: failed[task.name] for task in tasks if task.name in failed}


def _let_go(worker: subprocess.Popen[str]) -> None:
    """Close what a worker stays for."""
    if worker.stdin:
        with suppress(BrokenPipeError):
            worker.stdin.close()


def _close(worker: subprocess.Popen[str]) -> None:
    """Let a worker go, and wait until it is gone."""
    _let_go(worker)
    if worker.stdout:
        worker.stdout.close()
    worker.wait()


def _ended(code: int, last: str) -> str:
    if code < 0:
        return f"its process was ended by signal {-code}, probably for lack of memory; lower --jobs"
    return f"its process ended with code {code}: {last or 'no message'}"
