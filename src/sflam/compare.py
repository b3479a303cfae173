"""Methods side by side: the same samples, seeds and network for each, every run cached in a folder of its own.

A run's folder is named by method, seed and the digest of its whole configuration: a comparison that is asked for
again trains nothing, one that was stopped goes on where it was, and a setting that changes makes new runs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sflam import history, job
from sflam.config import Job, digest
from sflam.errors import ConfigError, unknown
from sflam.history import RoundRecord
from sflam.learn.methods import METHODS
from sflam.run_folder import RunFolder

DEFAULT = ("sflam", "sfl-v1", "sfl-v2", "sl", "fedlora", "central")
AIRLESS = ("central", "local", "fedavg")
"""Methods that are trained without the simulated network."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What one method came to.

    Attributes:
        method: its name.
        results: what ``--json`` prints of each run, by seed.
        records: the rounds of each run, by seed.
    """

    method: str
    results: tuple[dict[str, Any], ...]
    records: tuple[tuple[RoundRecord, ...], ...]

    def mean(self, key: str) -> float | None:
        """Return the mean over seeds of a number of the results; None where a run has none."""
        values = [one.get(key) for one in self.results]
        return None if None in values else statistics.fmean(value for value in values if value is not None)

    @property
    def spread(self) -> float | None:
        """Standard deviation of the accuracy over seeds, with n - 1; None for one seed."""
        shares = [float(one["accuracy"]) for one in self.results]
        return statistics.stdev(shares) if len(shares) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return the means for JSON, SI units; a count of bytes is a whole number where all seeds agree."""
        found = {
            "accuracy": self.mean("accuracy"),
            "accuracy_spread": self.spread,
            "rounds": self.mean("rounds"),
            "virtual_s": self.mean("virtual_s"),
            "energy_j": self.mean("energy_j"),
            "bytes_up": self.mean("bytes_up"),
            "bytes_down": self.mean("bytes_down"),
            "device_memory_bytes": self.mean("device_memory"),
        }
        whole = {
            key: int(value)
            for key, value in found.items()
            if value is not None and value.is_integer() and key not in ("accuracy", "virtual_s", "energy_j")
        }
        return found | whole | {"runs": [one["run_dir"] for one in self.results]}


def variant(wanted: Job, method: str, seed: int) -> Job:
    """Return the job of one method and seed; what a method cannot do is left out, and nothing else is changed."""
    network = replace(wanted.network, simulate=wanted.network.simulate and method not in AIRLESS)
    fleet = wanted.fleet if network.simulate else replace(wanted.fleet, policy="uniform")
    learn = replace(wanted.learn, method=method)
    model = wanted.model
    if method == "fedavg":
        model, learn = replace(model, trainable="full"), replace(learn, aggregation="fedavg")
    if not METHODS[method].split:
        learn = replace(learn, cache="off")
    return replace(wanted, seed=seed, model=model, learn=learn, fleet=fleet, network=network)


def expect_methods(methods: Sequence[str], seeds: int) -> None:
    """Raise ConfigError for a method that does not exist or comes twice, or for no seeds."""
    problems = [unknown("method", name, METHODS) for name in methods if name not in METHODS]
    if not methods or len(set(methods)) != len(methods):
        problems.append(f"--methods is {','.join(methods)!r}; name each method once")
    if seeds < 1:
        problems.append(f"--seeds is {seeds}; at least one is needed")
    if problems:
        raise ConfigError(problems)


def runs_of(wanted: Job, methods: Sequence[str], seeds: int) -> Iterator[tuple[str, Job]]:
    """Yield every run of a comparison: its folder's name and its job, seed by seed, so that all methods advance."""
    for seed in range(wanted.seed, wanted.seed + seeds):
        for method in methods:
            one = variant(wanted, method, seed)
            yield f"{method}-{seed}-{digest(one)}", one


def compare(
    wanted: Job,
    folder: Path,
    methods: Sequence[str] = DEFAULT,
    seeds: int = 1,
    *,
    told: Callable[[str, str], None] = lambda name, how: None,
) -> list[Compared]:
    """Run what is not finished yet, and return what every method came to.

    Args:
        wanted: the job, whose method is not used; its seed is the first.
        folder: holds a folder per run.
        methods: names of ``sflam.learn.methods``.
        seeds: how many, from the job's on.
        told: hears of every run: its name, and whether it was ``finished``, is ``resumed`` or ``started``.

    Raises:
        SflamError: as a run of its own would.
    """
    expect_methods(methods, seeds)
    results: dict[str, list[dict[str, Any]]] = {method: [] for method in methods}
    records: dict[str, list[tuple[RoundRecord, ...]]] = {method: [] for method in methods}
    for name, one in runs_of(wanted, methods, seeds):
        run = RunFolder(folder / name)
        how = "finished" if run.result.is_file() else "resumed" if run.history.is_file() else "started"
        told(name, how)
        if how != "finished":
            begun = job.resume(run.path) if how == "resumed" else job.start(one, run.path)
            for _ in begun.rounds():
                pass
            begun.finish()
        results[one.learn.method].append(run.read_result())
        records[one.learn.method].append(tuple(history.read(run.history)[1]))
    return [
        Compared(method=method, results=tuple(results[method]), records=tuple(records[method]))
        for method in methods
    ]
