"""Runs of a comparison that learn the same are trained once: the others are that run, charged anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sflam.compare.waiting import OnEvent, Waiting
from sflam.config import Job
from sflam.errors import SflamError
from sflam.records.run_folder import RunFolder


@dataclass
class TrainedOnce:
    """Which runs are trained, and which wait for one of them.

    Attributes:
        first: to be trained.
        rest: run -> the run that learns the same, of which it takes the rounds.
    """

    first: list[Waiting] = field(default_factory=list)
    rest: list[tuple[Waiting, Path]] = field(default_factory=list)


def trained_once(tasks: Sequence[Waiting]) -> TrainedOnce:
    """Return which of the runs that have no result are trained; the others take the rounds of one that is, or was.

    A run that was begun is gone on with.
    """
    sources: dict[str, Path] = {}
    found = TrainedOnce()
    keys = {task.name: learns(task.job) for task in tasks}
    for task in tasks:
        if keys[task.name] and RunFolder(task.path).result.is_file():
            sources.setdefault(keys[task.name], task.path)
    for task in tasks:
        folder = RunFolder(task.path)
        if folder.result.is_file():
            continue
        key = keys[task.name]
        if key in sources and not folder.config.is_file():
            found.rest.append((task, sources[key]))
            continue
        found.first.append(task)
        if key:
            sources[key] = task.path
    return found


def learns(job: Job) -> str:
    """Return what is equal for jobs that learn the same.

    It is "" for one whose plans decide on bits, cuts or servers, or whose network decides who delivers.
    """
    from sflam.network.presence import uncertain
    from sflam.run.replay import learning
    from sflam.run.situations import chosen_bits, moving_cuts

    waits = job.learn.sync == "round" and not uncertain(job)
    if not job.network.simulate or not waits or chosen_bits(job) or moving_cuts(job):
        return ""
    return learning(job)


def charge_anew(rest: Sequence[tuple[Waiting, Path]], on_event: OnEvent) -> list[Waiting]:
    """Write the runs that take their rounds from others; return those that cannot, which have to be trained."""
    from sflam.run.replay import Recording

    left: list[Waiting] = []
    known: dict[Path, Recording] = {}
    for task, source in rest:
        try:
            if source not in known:
                known = {source: Recording(source, task.job)}  # one at a time: each holds a model
            recording = known[source]
            recording.write(task.job, recording.charged(task.job), task.path, picture=False)
        except SflamError:  # its plans have other devices train, or there is nothing to take: training tells
            left.append(task)
            continue
        on_event(task.name, "started", 0)
        on_event(task.name, "done", task.job.learn.rounds)
    return left
