"""From a job to numbers side by side: the same samples, seeds and network for each, every run cached in its own folder.

A run's folder is named by method, seed and the digest of its whole configuration: a comparison that is asked for
again trains nothing, one that was stopped goes on where it was, and a setting that changes makes new runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sflam import history
from sflam.compare.outcome import Compared, target_of
from sflam.compare.running import Heard, Task, run_all, silent
from sflam.compare.variants import AXES, DEFAULT, Variant, variants_of
from sflam.config import Job, overrides
from sflam.durable import replace_file
from sflam.errors import ConfigError, RunError
from sflam.report.saved import SAVED
from sflam.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What everything came to.

    Attributes:
        job: what was asked for.
        seeds: runs of each variant.
        methods: name -> outcome at the job's own settings.
        sweeps: axis -> name -> (value, outcome), values ascending.
        target: the accuracy whose cost is told, in [0, 1].
        rule: how the target was chosen.
    """

    job: Job
    seeds: int
    methods: dict[str, Compared]
    sweeps: dict[str, dict[str, list[tuple[float, Compared]]]]
    target: float
    rule: str

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON, SI units."""
        sweeps = {
            axis: {
                name: [{"value": value, **one.to_dict(self.target)} for value, one in points]
                for name, points in lines.items()
            }
            for axis, lines in self.sweeps.items()
        }
        return {
            "methods": {name: one.to_dict(self.target) for name, one in self.methods.items()},
            "sweeps": sweeps,
            "target": {"accuracy": self.target, "rule": self.rule},
            "seeds": self.seeds,
        }

    def save(self, folder: Path) -> None:
        """Write what a report needs beside the runs; raises RunError where it cannot be written."""
        points = {
            axis: {name: [list(one.runs) for _, one in line] for name, line in lines.items()}
            for axis, lines in self.sweeps.items()
        }
        saved = self.to_dict() | {
            "config": asdict(self.job),
            "set": overrides(self.job),
            "labels": {axis: AXES[axis].label for axis in self.sweeps},
            "options": {
                AXES[axis].option: sorted({value for line in lines.values() for value, _ in line})
                for axis, lines in self.sweeps.items()
            },
            "run_names": {name: list(one.runs) for name, one in self.methods.items()},
            "sweep_run_names": points,
        }
        path = folder / SAVED
        try:
            replace_file(path, (json.dumps(saved, indent=1) + "\n").encode())
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error.strerror}; choose another folder") from error


def compare(
    wanted: Job,
    folder: Path,
    methods: Sequence[str] = DEFAULT,
    seeds: int = 1,
    *,
    sweeps: Mapping[str, Sequence[float]] | None = None,
    target: float | None = None,
    jobs: int | None = 1,
    heard: Heard = silent,
) -> Comparison:
    """Run what is not finished yet, and return what everything came to.

    Args:
        wanted: the job, whose method is not used; its seed is the first.
        folder: holds a folder per run.
        methods: names of ``sflam.learn.methods``, each alone or as ``METHOD+ALLOCATOR``.
        seeds: how many, from the job's on.
        sweeps: axis of ``sflam.compare.variants`` -> values.
        target: an accuracy in (0, 1] whose cost is told; by default a share of the best method's.
        jobs: runs at once, each in a process of its own; 1 runs them here, None takes what cores and memory allow.
        heard: hears of every run; see ``sflam.compare.running``.

    Raises:
        SflamError: as a run of its own would.
    """
    if target is not None and not 0 < target <= 1:
        raise ConfigError(f"--target is {target:g}; give an accuracy above 0 and up to 1")
    lines = variants_of(wanted, methods, seeds, sweeps)
    tasks: dict[str, Task] = {}
    for place in range(seeds):  # seed by seed, so that all lines advance
        for line in lines:
            name = line.runs[place]
            tasks.setdefault(name, Task(name, line.jobs[place], folder / name))
    run_all(list(tasks.values()), folder, jobs, heard)
    found = [(line, _outcome(line, folder)) for line in lines]
    plain = {line.name: one for line, one in found if not line.axis}
    along: dict[str, dict[str, list[tuple[float, Compared]]]] = {}
    for line, one in found:
        if line.axis:
            along.setdefault(line.axis, {}).setdefault(line.name, []).append((line.value, one))
    accuracy, rule = target_of(list(plain.values()), target)
    return Comparison(job=wanted, seeds=seeds, methods=plain, sweeps=along, target=accuracy, rule=rule)


def _outcome(line: Variant, folder: Path) -> Compared:
    runs = [RunFolder(folder / name) for name in line.runs]
    return Compared(
        name=line.name,
        results=tuple(run.read_result() for run in runs),
        records=tuple(tuple(history.read(run.history)[1]) for run in runs),
        runs=line.runs,
    )
