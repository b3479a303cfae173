"""Runs what is not finished yet: one after another here, or several at once, each in a process of its own.

A folder belongs to one comparison at a time: the lock on it is held by this process and by every worker, so that a
comparison that is asked for again after this process was killed begins when the last worker is gone. Workers leave
when their standard input closes, which happens however this process ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sflam.compare.capacity import cores, jobs_that_fit
from sflam.config import Job, to_toml
from sflam.errors import ConfigError, RunError
from sflam.run_folder import RunFolder

if sys.platform != "win32":
    import fcntl

Heard = Callable[[str, str, int], None]
"""Hears of a run: its name, what became of it (``finished``, ``resumed``, ``started``, ``round``, ``done``), and how
many rounds it has done."""
LOCK = ".lock"
PATIENCE = 15.0
"""Seconds to wait for the workers of a comparison that was killed."""


@dataclass(frozen=True)
class Task:
    """One run.

    Attributes:
        name: of the run, and of its folder.
        job: what is trained.
        path: its folder.
    """

    name: str
    job: Job
    path: Path


def silent(name: str, what: str, rounds: int) -> None:
    """Hear nothing."""


def run_all(tasks: Sequence[Task], folder: Path, jobs: int | None, heard: Heard = silent) -> None:
    """Run every task that has no result yet.

    Args:
        tasks: in the order they are begun.
        folder: of the comparison.
        jobs: runs at once; 1 runs them in this process, None takes what cores and memory allow.
        heard: see ``Heard``.

    Raises:
        SflamError: what a run raised; in a process of its own, RunError with its name. Other runs stop as well, and go
            on when asked for again.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError(f"--jobs is {jobs}; at least one is needed")
    with _alone(folder) as lock:
        left = []
        for task in tasks:
            if RunFolder(task.path).result.is_file():
                heard(task.name, "finished", task.job.learn.rounds)
            else:
                left.append(task)
        most = jobs_that_fit([task.job for task in left]) if jobs is None else jobs
        most = min(most, len(left))
        if most > 1:
            _run_apart(left, most, lock, heard)
        else:
            for task in left:
                run_here(task, heard)


def run_here(task: Task, heard: Heard) -> None:
    """Run a task in this process, from where it was stopped if it was."""
    from sflam import job as runs

    folder = RunFolder(task.path)
    resumed = folder.config.is_file()
    begun = runs.resume(task.path) if resumed else runs.start(task.job, task.path)
    heard(task.name, "resumed" if resumed else "started", len(begun.records))
    for record in begun.rounds():
        heard(task.name, "round", record.round + 1)
    begun.finish()
    heard(task.name, "done", len(begun.records))


def _run_apart(tasks: Sequence[Task], jobs: int, lock: int | None, heard: Heard) -> None:
    telling, stopping = threading.Lock(), threading.Event()
    workers: set[subprocess.Popen[str]] = set()
    environment = dict(os.environ)
    environment.setdefault(
        "OMP_NUM_THREADS", str(max(1, cores() // jobs))
    )  # a pool each would fight over the cores

    def one(task: Task) -> None:
        if stopping.is_set():
            return
        with tempfile.TemporaryFile("w+") as said:
            worker = subprocess.Popen(
                [sys.executable, "-m", "sflam.compare.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env=environment,
                pass_fds=() if lock is None else (lock,),
            )
            workers.add(worker)
            assert worker.stdin and worker.stdout
            problem = ""
            try:
                with suppress(
                    BrokenPipeError
                ):  # it ended before it was told what to do; its last words say why
                    worker.stdin.write(json.dumps({"path": str(task.path), "job": to_toml(task.job)}) + "\n")
                    worker.stdin.flush()
                for line in worker.stdout:
                    event = json.loads(line)
                    problem = event.get("problem", problem)
                    if "what" in event:
                        with telling:
                            heard(task.name, event["what"], event["rounds"])
                worker.wait()  # on its way out: closing its input now would look as if we were gone
            finally:
                _close(worker)
                workers.discard(worker)
            if worker.returncode and not stopping.is_set():
                said.seek(0)
                last = said.read().strip().rpartition("\n")[2]
                raise RunError(f"run {task.name}: {problem or _ended(worker.returncode, last)}")

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(one, task) for task in tasks]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            failed = [future for future in futures if future.done() and future.exception()]
            if failed:
                failed[0].result()
        finally:
            stopping.set()
            for worker in list(workers):
                _let_go(worker)


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
        return f"its process was ended by signal {-code}, as for want of memory; lower --jobs"
    return f"its process ended with code {code}: {last or 'nothing was said'}"


@contextmanager
def _alone(folder: Path) -> Iterator[int | None]:
    """Hold the comparison's folder; yield the descriptor of its lock, None where there are none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror}; choose another with --out") from error
    try:
        if sys.platform == "win32":  # two comparisons in one folder are then not told apart
            yield None
            return
        until = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > until:
                    raise RunError(
                        f"another comparison is writing to {folder}; wait for it, or choose another with --out"
                    ) from None
                time.sleep(0.1)
        yield descriptor
    finally:
        os.close(descriptor)
