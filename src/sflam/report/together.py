"""Any runs side by side: a label each, runs of one label being the seeds of one line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sflam.config import plain
from sflam.errors import ConfigError, RunError
from sflam.records.history import RoundRecord
from sflam.records.saved import SavedRun, is_comparison, read_run
from sflam.report.outcome import Compared

Together = Mapping[str, Sequence[SavedRun]]
"""Label -> its runs."""


def read_together(
    folders: Sequence[str | Path], labels: Sequence[str] = ()
) -> dict[str, tuple[SavedRun, ...]]:
    """Return label -> the finished runs in its folders.

    Args:
        folders: of runs, trained here or elsewhere.
        labels: one for each, the folders' names by default; runs of one label are seeds of one line.

    Raises:
        ConfigError: there are not as many labels as folders, or an empty one.
        RunError: a folder holds no finished run.
    """
    paths = [Path(folder) for folder in folders]
    names = list(labels) or [path.resolve().name for path in paths]
    if len(names) != len(paths) or not all(names):
        raise ConfigError(
            f"--labels is {','.join(names)!r}, {len(names)} for {len(paths)} runs; give one for each, by commas"
        )
    found: dict[str, list[SavedRun]] = {}
    for name, path in zip(names, paths, strict=True):
        if is_comparison(path):
            raise RunError(f"{path} is a comparison; give the folders of its runs, which are in it")
        found.setdefault(name, []).append(read_run(path))
    return {name: tuple(runs) for name, runs in found.items()}


def read_runs(
    folders: Sequence[str | Path], labels: Sequence[str] = ()
) -> dict[str, list[tuple[RoundRecord, ...]]]:
    """Return label -> the rounds of its runs, to be drawn by ``sflam.draw_accuracy`` and ``sflam.draw_cost``.

    Args:
        folders: of finished runs.
        labels: one for each, the folders' names by default; runs of one label are seeds of one line.

    Raises:
        SflamError: see :func:`read_together`.
    """
    return {name: [run.records for run in runs] for name, runs in read_together(folders, labels).items()}


def outcomes(found: Together) -> list[Compared]:
    """Return the outcome of every label."""
    return [
        Compared(
            name=name,
            results=tuple(run.result for run in runs),
            records=tuple(run.records for run in runs),
            runs=tuple(run.name for run in runs),
            learning_rate=runs[0].job.learn.practice.lr,
        )
        for name, runs in found.items()
    ]


def differing(found: Together) -> list[tuple[str, ...]]:
    """Return a row per setting in which the first runs of the labels differ: its name, and its value for each."""
    jobs = [_flat(plain(runs[0].job)) for runs in found.values()]
    names = list(dict.fromkeys(name for job in jobs for name in job))
    rows = [(name, *(json.dumps(job.get(name)) for job in jobs)) for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= (
            {f"{name}.{key}": inner for key, inner in value.items()}
            if isinstance(value, dict)
            else {name: value}
        )
    return found
