"""From a job to numbers side by side: the same samples, seeds and network for each, every run cached in its own folder.

A run's folder is named by method, seed and the digest of its whole configuration: a comparison that is asked for
again trains nothing, one that was stopped goes on where it was, and a setting that changes makes new runs. A run that
fails takes its method out of the table, since a mean over the seeds that are left would be biased; the others go on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sflam.compare.asked import write_asked
from sflam.compare.rates import RateGrid, Tried
from sflam.compare.running import Failure, expect_jobs, failure_lines, ignore_event, run_all
from sflam.compare.study import Study, tasks_of
from sflam.compare.variants import AIRLESS, AXES, DEFAULT, Variant
from sflam.compare.waiting import OnEvent
from sflam.config import Job, overrides, plain
from sflam.errors import RunsError
from sflam.files import replace_file, writing
from sflam.locks import hold
from sflam.records import history
from sflam.records.run_folder import RunFolder
from sflam.records.saved import SAVED
from sflam.report.charts.comparison import draw_comparison
from sflam.report.notebook import frame, html_table, picture
from sflam.report.outcome import Compared, Target, targets_of
from sflam.report.statistics import LEVEL
from sflam.report.tables import numbers
from sflam.report.terminal.comparison_table import intervals_note, result_rows
from sflam.report.terminal.notebook_bar import in_kernel
from sflam.report.terminal.runs_progress import RunsProgress

ELSEWHERE = "choose another with --out"
PATIENCE_S = 15.0
"""Seconds to wait for the workers of a comparison that was killed."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        study: what was asked for.
        methods: name -> outcome at the job's own settings; without those of which a run failed.
        sweeps: axis -> name -> (value, outcome), values ascending; of these methods, without points that failed.
        targets: the accuracies whose cost is reported, ascending.
        grid: the result of every method at every learning rate; None without a grid.
        failed: the name of a run -> why it did not finish.
    """

    study: Study
    methods: dict[str, Compared]
    sweeps: dict[str, dict[str, list[tuple[float, Compared]]]]
    targets: tuple[Target, ...]
    grid: RateGrid | None = None
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """A line for every reason why runs failed."""
        return failure_lines(self.failed)

    def to_frame(self) -> Any:
        """Return a row per method and figure with its interval, as results.csv has them.

        A pandas DataFrame; or name -> array where pandas is not installed.
        """
        return frame(numbers(self.to_dict()["methods"]))

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the table of results, and accuracy against every cost."""
        rows = self.to_dict()["methods"]
        head, body = result_rows(rows)
        drawn = draw_comparison({name: method.records for name, method in self.methods.items()})
        return html_table(head, body, f"Means over seeds{intervals_note(rows)}") + picture(drawn)

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON, SI units."""
        targets = [target.accuracy for target in self.targets]
        baseline = self.methods.get(self.study.baseline)

        def row(item: Compared) -> dict[str, Any]:
            against = None if baseline is None or item.name == baseline.name else baseline
            return item.to_dict(targets, against)

        sweeps = {
            axis: {
                name: [{"value": value, **point.to_dict(targets)} for value, point in points]
                for name, points in lines.items()
            }
            for axis, lines in self.sweeps.items()
        }
        return {
            "methods": {name: row(method) for name, method in self.methods.items()},
            "sweeps": sweeps,
            "target": self.targets[0].to_dict(),
            "targets": [target.to_dict() for target in self.targets],
            "baseline": self.study.baseline,
            "confidence": LEVEL,
            "seeds": self.study.seeds,
            "rates": None if self.grid is None else self.grid.to_dict(),
            "failed": self.failed,
        }

    def save(self, folder: Path) -> None:
        """Write what a report needs beside the runs; raises RunError where it cannot be written."""
        points = {
            axis: {name: [list(item.runs) for _, item in line] for name, line in lines.items()}
            for axis, lines in self.sweeps.items()
        }
        job = self.study.job
        saved = self.to_dict() | {
            "config": plain(job),
            "set": overrides(job),
            "labels": {axis: AXES[axis].label for axis in self.sweeps},
            "asked": list(self.study.methods),
            "options": {AXES[axis].option: sorted(values) for axis, values in self.study.sweeps.items()},
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
    targets: Sequence[float] = (),
    baseline: str = "",
    jobs: int | None = 1,
    on_event: OnEvent | None = None,
) -> Comparison:
    """Run what is not finished yet, and return the result of all: :func:`run_study` of the :class:`Study` of these.

    In a notebook a bar shows how far it is.

    Args:
        wanted: the job, whose method is not used; its seed is the first.
        folder: holds a folder per run.
        methods: names of ``sflam.learn.methods``, each alone or as ``METHOD+ALLOCATOR``, perhaps with settings of its
            own; see :mod:`sflam.compare.lines`.
        seeds: how many, from the job's on.
        sweeps: axis of ``sflam.compare.variants`` -> values.
        rates: learning rates that every method is tried at; see :class:`Study`.
        targets: accuracies in (0, 1] whose cost is reported; by default a share of the best method's.
        baseline: the method that the others are held against, seed by seed; "" for none.
        jobs: runs at once, each in a process of its own; 1 runs them here, None takes what cores and memory allow.
        on_event: called for every run, in place of the notebook's bar; see ``sflam.compare.running``.

    Raises:
        SflamError: see :func:`run_study`.
    """
    study = Study(
        job=wanted,
        methods=tuple(methods),
        seeds=seeds,
        sweeps={axis: tuple(values) for axis, values in (sweeps or {}).items()},
        rates=None if rates is None else tuple(rates),
        targets=tuple(targets),
        baseline=baseline,
    )
    if on_event is not None or not in_kernel():
        return run_study(study, folder, jobs=jobs, on_event=on_event or ignore_event)
    runs = study.count()
    with RunsProgress(runs * study.job.learn.rounds, runs) as shown:
        return run_study(study, folder, jobs=jobs, on_event=shown.on_event)


def run_study(
    study: Study, folder: Path, *, jobs: int | None = 1, on_event: OnEvent = ignore_event
) -> Comparison:
    """Run what of a study is not finished yet, and return the result of all.

    Args:
        study: what is compared.
        folder: holds a folder per run.
        jobs: runs at once, each in a process of its own; 1 runs them here, None takes what cores and memory allow.
        on_event: called for every run; see ``sflam.compare.running``.

    Raises:
        ConfigError: something that was asked for does not exist, or no job can have it.
        RunsError: of every method a run failed.
        RunError: the folder cannot be written, or another comparison holds it.
    """
    expect_jobs(jobs)
    study.expect_possible()  # what it refuses, it refuses before anything runs
    tries, lines = study.tries(), [] if study.rates else study.lines()
    grid = None
    with holding(folder, study) as lock:
        failures = run_all(tasks_of(tries, folder), jobs, lock, on_event)
        known = {name for line in tries for name in line.runs}
        if tries:
            grid = _grid(study.job.seed, tries, folder, failures)
            best = grid.winners
            lines = [item for item in study.lines(best) if item.name in best]
            tries = [line for line in tries if line.name not in best]
        left = [task for task in tasks_of(lines, folder) if task.name not in known]
        failures |= run_all(left, jobs, lock, on_event)
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
    return Comparison(
        study=study,
        methods=plain,
        sweeps=along,
        targets=targets_of(list(plain.values()), study.targets, AIRLESS),
        grid=grid,
        failed=failed,
    )


@contextmanager
def holding(folder: Path, study: Study) -> Iterator[int | None]:
    """Keep a folder for one comparison and write there what it is asked for; yield the lock that workers share.

    Raises:
        RunError: the folder cannot be written, or another comparison holds it.
    """
    with writing(folder, ELSEWHERE):
        folder.mkdir(parents=True, exist_ok=True)
    busy = f"another comparison is writing to {folder}; wait for it, or {ELSEWHERE}"
    held = hold(folder, busy, patience=PATIENCE_S)
    try:
        write_asked(study, folder)
        yield held.descriptor
    finally:
        held.release()


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
        results=tuple(run.read_result() | {"run_dir": str(run.path)} for run in runs),
        records=tuple(tuple(history.read(run.history)[1]) for run in runs),
        runs=line.runs,
        learning_rate=line.jobs[0].learn.practice.lr,
    )
