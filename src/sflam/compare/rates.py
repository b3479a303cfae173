"""One grid of learning rates for all methods: each is tried at every rate on one seed, its best is used throughout.

The best has the largest validation accuracy, for a language model the smallest validation loss; of equals the smaller
rate. A rate at which training diverges is lost. The test part, which accuracies are of, has no say in it: where the job
holds no validation part out and the data brings none, a tenth of the training samples becomes one, in every run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sflam.config import Job
from sflam.data.settings import VALIDATION
from sflam.errors import ConfigError


def expect_rates(rates: Sequence[float]) -> None:
    """Raise ConfigError where these are not learning rates, each named once."""
    wrong = [f"{rate:g}" for rate in rates if not 0 < rate < math.inf]
    if wrong:
        raise ConfigError(f"--rates holds {wrong[0]}; a learning rate is a number above 0")
    if not rates or len(set(rates)) != len(rates):
        raise ConfigError(f"--rates is {','.join(f'{rate:g}' for rate in rates)!r}; give each rate once")


def validated(job: Job) -> Job:
    """Return a job that holds a validation part out: its own share, or the default one."""
    return replace(job, data=replace(job.data, validation=job.data.validation or VALIDATION))


def at_rate(job: Job, rate: float) -> Job:
    """Return a job at another learning rate."""
    return replace(job, learn=replace(job.learn, lr=rate))


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A method at one rate of the grid.

    Attributes:
        rate: the learning rate.
        run: the name of the run's folder.
        result: what ``--json`` prints of the run; None where it diverged or failed.
        why: then, why.
        diverged: whether it diverged, which loses; a failure of another kind does not judge the rate.
    """

    rate: float
    run: str
    result: Mapping[str, Any] | None = None
    why: str = ""
    diverged: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the rate and what it led to on the validation part, for JSON."""
        found: dict[str, Any] = {"learning_rate": self.rate, "accuracy": None, "loss": None, "run": self.run}
        if self.result is not None:
            scores = {key: self.result[f"validation_{key}"] for key in ("accuracy", "loss")}
            found |= {key: value for key, value in scores.items() if math.isfinite(value)}
        return found | ({"diverged": self.diverged, "why": self.why} if self.why else {})


@dataclass(frozen=True, kw_only=True)
class RateGrid:
    """The result of every method at every rate.

    Attributes:
        seed: of all these runs.
        tried: method -> its runs, rates ascending.
    """

    seed: int
    tried: dict[str, tuple[Tried, ...]]

    @property
    def rates(self) -> tuple[float, ...]:
        """The grid, ascending."""
        return tuple(item.rate for item in next(iter(self.tried.values())))

    @property
    def winners(self) -> dict[str, float]:
        """Method -> its best rate; without methods that have none."""
        found = {name: best(runs) for name, runs in self.tried.items()}
        return {name: rate for name, rate in found.items() if rate is not None}

    @property
    def lost(self) -> list[tuple[str, Tried]]:
        """Every method and rate that diverged, where the method has another rate."""
        named = self.winners
        return [(name, item) for name in named for item in self.tried[name] if item.diverged]

    @property
    def at_an_end(self) -> dict[str, float]:
        """Methods that do best at the smallest or largest rate, so that a wider grid may show a better one."""
        rates = self.rates
        ends = {rates[0], rates[-1]} if len(rates) > 1 else set()
        return {name: rate for name, rate in self.winners.items() if rate in ends}

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        results = [item.result for runs in self.tried.values() for item in runs if item.result is not None]
        return {
            "grid": list(self.rates),
            "seed": self.seed,
            "part": "validation",
            "by": "loss" if any(map(_language, results)) else "accuracy",
            "methods": {name: [item.to_dict() for item in runs] for name, runs in self.tried.items()},
        }


def best(tried: Sequence[Tried]) -> float | None:
    """Return the best rate.

    Returns:
        None where all are lost, and where a run failed that did not diverge: its rate might have been the best.
    """
    if any(item.result is None and not item.diverged for item in tried):
        return None
    known = [(_merit(item.result), -item.rate) for item in tried if item.result is not None]
    return -max(known)[1] if known else None


def _merit(result: Mapping[str, Any]) -> float:
    key = "loss" if _language(result) else "accuracy"
    value = float(result[f"validation_{key}"]) * (-1 if key == "loss" else 1)
    return value if math.isfinite(value) else -math.inf


def _language(result: Mapping[str, Any]) -> bool:
    return result["perplexity"] is not None
