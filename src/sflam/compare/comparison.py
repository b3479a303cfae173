"""From a job to numbers side by side: the same samples, seeds and network for each, every run cached in its own folder.

A run's folder is named by method, seed and the digest of its whole configuration: a comparison that is asked for
again trains nothing, one that was stopped goes on where it was, and a setting that changes makes new runs. A run that
fails takes its method out of the table, since a mean over the seeds that are left would be biased; the others go on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sflam.compare.lines import LineName
from sflam.compare.outcome import Compared, target_of
from sflam.compare.rates import RateGrid, Tried, expect_rates, validated
from sflam.compare.running import Failure, expect_jobs, ignore_event, run_all
from sflam.compare.variants import AXES, DEFAULT, Variant, variants_of
from sflam.compare.waiting import OnEvent, Waiting
from sflam.config import Job, overrides, plain
from sflam.errors import ConfigError, RunsError
from sflam.files import replace_file, writing
from sflam.locks import hold
from sflam.records import history
from sflam.records.run_folder import RunFolder
from sflam.records.saved import SAVED
from sflam.run.compatibility import problems_of

ELSEWHERE = "choose another with --out"
PATIENCE_S = 15.0
"""Seconds to wait for the workers of a comparison that was killed."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        job: what was asked for.
        seeds: runs of each variant.
        methods: name -> outcome at the job's own settings; without those of which a run failed.
        sweeps: axis -> name -> (value, outcome), values ascending; of these methods, without points that failed.
        target: the accuracy whose cost is reported, in [0, 1].
        rule: how the target was chosen.
        asked: the names that were asked for.
        options: axis -> the values that were asked for.
        grid: the result of every method at every learning rate; None without a grid.
        failed: the name of a run -> why it did not finish.
    """

    job: Job
    seeds: int
    methods: dict[str, Compared]
    sweeps: dict[str, dict[str, list[tuple[float, Compared]]]]
    target: float
    rule: str
    asked: tuple[str, ...] = ()
    options: dict[str, tuple[float, ...]] = field(default_factory=dict)
    grid: RateGrid | None = None
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """A line for every reason why runs failed."""
        return failure_lines(self.failed)

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON, SI units."""
        sweeps = {
            axis: {
                name: [{"value": value, **point.to_dict(self.target)} for value, point in points]
                for name, points in lines.items()
            }
            for axis, lines in self.sweeps.items()
        }
        return {
            "methods": {name: method.to_dict(self.target) for name, method in self.methods.items()},
            "sweeps": sweeps,
            "target": {"accuracy": self.target, "rule": self.rule},
            "seeds": self.seeds,
            "rates": None if self.grid is None else self.grid.to_dict(),
            "failed": self.failed,
        }

    def save(self, folder: Path) -> None:
        """Write what a report needs beside the runs; raises RunError where it cannot be written."""
        points = {
            axis: {name: [list(item.runs) for _, item in line] for name, line in lines.items()}
            for axis, lines in self.sweeps.items()
        }
        saved = self.to_dict() | {
            "config": plain(self.job),
            "set": overrides(self.job),
            "labels": {axis: AXES[axis].label for axis in self.sweeps},
            "asked": list(self.asked),
            "options": {AXES[axis].option: sorted(values) for axis, values in self.options.items()},
            "run_names": {name: list(method.runs) for name, method in self.methods.items()},
            "sweep_run_names": points,
        }
        path = folder / SAVED
        with writing(path, "choose another folder"):
            replace_file(path, (json.dumps(saved, indent=1) + "\n").encode())


def compare(
    wanted: Job,
    folder: Path,
    methods: Sequence[str] = DEFAULT,
    seeds: int = 1,
    *,
    sweeps: Mapping[str, Sequence[float]] | None = None,
    rates: Sequence[float] | None = None,
    target: float | None = None,
    jobs: int | None = 1,
    on_event: OnEvent = ignore_event,
) -> Comparison:
    """Run what is not finished yet, and return the result of all.

    Args:
        wanted: the job, whose method is not used; its seed is the first.
        folder: holds a folder per run.
        methods: names of ``sflam.learn.methods``, each alone or as ``METHOD+ALLOCATOR``, perhaps with settings of its
            own; see :mod:`sflam.compare.lines`.
        seeds: how many, from the job's on.
        sweeps: axis of ``sflam.compare.variants`` -> values.
        rates: learning rates that every method is tried at on the first seed; its best by validation score is used
            throughout. None takes the job's own.
        target: an accuracy in (0, 1] whose cost is reported; by default a share of the best method's.
        jobs: runs at once, each in a process of its own; 1 runs them here, None takes what cores and memory allow.
        on_event: called for every run; see ``sflam.compare.running``.

    Raises:
        ConfigError: something that was asked for does not exist, or no job can have it.
        RunsError: of every method a run failed.
        RunError: the folder cannot be written, or another comparison holds it.
    """
    if target is not None and not 0 < target <= 1:
        raise ConfigError(f"--target is {target:g}; give an accuracy above 0 and up to 1")
    expect_jobs(jobs)
    wanted = wanted if rates is None else validated(wanted)
    tries = grid_lines(wanted, methods, rates)
    lines = variants_of(wanted, methods, seeds, sweeps)  # what it refuses, it refuses before anything runs
    expect_possible(lines)
    grid = None
    with writing(folder, ELSEWHERE):
        folder.mkdir(parents=True, exist_ok=True)
    busy = f"another comparison is writing to {folder}; wait for it, or {ELSEWHERE}"
    held = hold(folder, busy, patience=PATIENCE_S)
    try:
        lock = held.descriptor
        failures = run_all(_tasks(tries, folder), jobs, lock, on_event)
        known = {name for line in tries for name in line.runs}
        if tries:
            grid = _grid(wanted.seed, tries, folder, failures)
            best = grid.winners
            lines = [item for item in variants_of(wanted, methods, seeds, sweeps, best) if item.name in best]
            tries = [line for line in tries if line.name not in best]
        left = [task for task in _tasks(lines, folder) if task.name not in known]
        failures |= run_all(left, jobs, lock, on_event)
    finally:
        held.release()
    concerned = {name for line in (*tries, *lines) for name in line.runs}
    failed = {name: failure.why for name, failure in failures.items() if name in concerned}
    found = [(line, _outcome(line, folder)) for line in lines if not failed.keys() & set(line.runs)]
    plain = {line.name: item for line, item in found if not line.axis}
    if not plain:
        raise RunsError(failure_lines(failed))
    along: dict[str, dict[str, list[tuple[float, Compared]]]] = {}
    for line, item in found:
        if line.axis and line.name in plain:
            along.setdefault(line.axis, {}).setdefault(line.name, []).append((line.value, item))
    accuracy, rule = target_of(list(plain.values()), target)
    return Comparison(
        job=wanted,
        seeds=seeds,
        methods=plain,
        sweeps=along,
        target=accuracy,
        rule=rule,
        asked=tuple(methods),
        options={axis: tuple(values) for axis, values in (sweeps or {}).items()},
        grid=grid,
        failed=failed,
    )


def expect_possible(lines: Sequence[Variant]) -> None:
    """Raise ConfigError where the settings of some lines do not go together."""
    problems = [f"{line.name}: {problem}" for line in lines for problem in problems_of(line.jobs[0])]
    if problems:
        raise ConfigError(dict.fromkeys(problems))


def grid_lines(wanted: Job, methods: Sequence[str], rates: Sequence[float] | None) -> list[Variant]:
    """Return every method at every rate of the grid, ascending, on the first seed; nothing without a grid."""
    if rates is None:
        return []
    expect_rates(rates)
    if own := [
        name for name in methods if any(item.startswith("learn.lr=") for item in LineName.of(name).settings)
    ]:
        raise ConfigError(f"{own[0]} has a learning rate of its own; leave it out, or leave --rates out")
    ascending = sorted(map(float, rates))
    every = [variants_of(wanted, methods, 1, rates=dict.fromkeys(methods, rate)) for rate in ascending]
    return [line for lines in every for line in lines]


def count_runs(
    wanted: Job,
    methods: Sequence[str],
    seeds: int,
    sweeps: Mapping[str, Sequence[float]] | None,
    rates: Sequence[float] | None,
) -> int:
    """Return how many runs a comparison has; which rate wins makes no difference."""
    tries = grid_lines(wanted, methods, rates)
    any_rate = {line.name: line.jobs[0].learn.practice.lr for line in tries}
    lines = variants_of(wanted, methods, seeds, sweeps, any_rate)
    return len({run for line in (*tries, *lines) for run in line.runs})


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


def _tasks(lines: Sequence[Variant], folder: Path) -> list[Waiting]:
    """Return the runs of some lines, each once; seed by seed, so that all lines advance."""
    tasks: dict[str, Waiting] = {}
    for place in range(max((len(line.jobs) for line in lines), default=0)):
        for line in lines:
            name = line.runs[place]
            tasks.setdefault(name, Waiting(name, line.jobs[place], folder / name))
    return list(tasks.values())


def _grid(seed: int, tries: Sequence[Variant], folder: Path, failures: Mapping[str, Failure]) -> RateGrid:
    tried: dict[str, list[Tried]] = {}
    for line in tries:
        rate, run = line.jobs[0].learn.practice.lr, line.runs[0]
        if run in failures:
            item = Tried(rate=rate, run=run, why=failures[run].why, diverged=failures[run].diverged)
        else:
            item = Tried(rate=rate, run=run, result=RunFolder(folder / run).read_result())
        tried.setdefault(line.name, []).append(item)
    return RateGrid(seed=seed, tried={name: tuple(runs) for name, runs in tried.items()})


def _outcome(line: Variant, folder: Path) -> Compared:
    runs = [RunFolder(folder / name) for name in line.runs]
    return Compared(
        name=line.name,
        results=tuple(run.read_result() for run in runs),
        records=tuple(tuple(history.read(run.history)[1]) for run in runs),
        runs=line.runs,
        learning_rate=line.jobs[0].learn.practice.lr,
    )
