"""The result of a line over its seeds: means and intervals, the cost of reaching a target, differences to another."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sflam.records.history import RoundRecord
from sflam.report.statistics import censored, interval, paired

SHARE = 0.95
"""Without a target: this share of the best method's final accuracy."""
EXACT = ("accuracy", "validation_accuracy", "virtual_s", "energy_j", "device_flop", "worst_device_accuracy")
SUMMED = ("virtual_s", "energy_j", "bytes_up", "bytes_down")
COSTS = ("rounds", "virtual_s", "energy_j", "bytes")
"""What reaching a target costs."""
COMPARED = ("accuracy", "virtual_s", "energy_j", "bytes")
"""What a line is held against a baseline in."""


@dataclass(frozen=True)
class Target:
    """An accuracy whose cost is reported.

    Attributes:
        accuracy: in [0, 1].
        rule: how it was chosen.
    """

    accuracy: float
    rule: str

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"accuracy": self.accuracy, "rule": self.rule}


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The result of one variant.

    Attributes:
        name: of the variant.
        results: what ``--json`` prints of each run, by seed.
        records: the rounds of each run, by seed.
        runs: the folder of each run, within that of the comparison.
        learning_rate: of every run.
    """

    name: str
    results: tuple[dict[str, Any], ...]
    records: tuple[tuple[RoundRecord, ...], ...]
    runs: tuple[str, ...] = ()
    learning_rate: float | None = None

    def values(self, key: str) -> list[float | None]:
        """Return a number of the results, by seed; ``bytes`` is both ways; None where a run has none."""
        if key == "bytes":
            ways = zip(self.values("bytes_up"), self.values("bytes_down"), strict=True)
            return [None if up is None or down is None else up + down for up, down in ways]
        return [result.get(key) for result in self.results]

    def mean(self, key: str) -> float | None:
        """Return the mean over seeds of a number of the results; None where a run has none."""
        return _mean(self.values(key))

    @property
    def spread(self) -> float | None:
        """Standard deviation of the accuracy over seeds, with n - 1; None for one seed."""
        shares = [float(result["accuracy"]) for result in self.results]
        return statistics.stdev(shares) if len(shares) > 1 else None

    def to_dict(self, targets: Sequence[float] = (), baseline: Compared | None = None) -> dict[str, Any]:
        """Return means and intervals for JSON, SI units; a count of bytes is a whole number where all seeds agree.

        Args:
            targets: accuracies in [0, 1]; adds ``to_targets``, the cost of reaching each, and ``to_target``, the first.
            baseline: adds ``against_baseline``, the differences to it.
        """
        sources = {
            "accuracy": "accuracy",
            "validation_accuracy": "validation_accuracy",
            **{key: key for key in ("rounds", *SUMMED)},
            "device_memory_bytes": "device_memory",
            "device_flop": "device_flop",
            "worst_device_accuracy": "worst_device_accuracy",
        }
        found = {key: self.mean(source) for key, source in sources.items()}
        intervals = {key: interval(self.values(source)) for key, source in sources.items()}
        whole = {
            key: int(value)
            for key, value in found.items()
            if value is not None and value.is_integer() and key not in EXACT
        }
        reached = [{"target": target} | to_target(self.records, target) for target in targets]
        return {
            **found,
            **whole,
            "accuracy_spread": self.spread,
            "seeds": len(self.results),
            "intervals": {
                key: each.to_dict() for key, each in intervals.items() if each and each.half is not None
            },
            "learning_rate": self.learning_rate,
            **({"to_target": reached[0], "to_targets": reached} if reached else {}),
            **({} if baseline is None else {"against_baseline": self.against(baseline, targets)}),
            "runs": [result["run_dir"] for result in self.results],
        }

    def against(self, other: Compared, targets: Sequence[float] = ()) -> dict[str, Any]:
        """Return this less another over the same seeds: mean, interval and n of every figure, for JSON.

        Returns:
            ``accuracy``, ``virtual_s``, ``energy_j``, ``bytes``, and in ``to_targets`` the costs of each target, over
            the seeds in which both reached it. None where no seed has both.
        """
        found: dict[str, Any] = {
            key: _written(paired(self.values(key), other.values(key))) for key in COMPARED
        }
        found["to_targets"] = [
            {"target": target}
            | {
                key: _written(
                    paired(costs_of(self.records, target)[key], costs_of(other.records, target)[key])
                )
                for key in COSTS
            }
            for target in targets
        ]
        return found


def to_target(runs: Sequence[Sequence[RoundRecord]], target: float) -> dict[str, Any]:
    """Return what reaching an accuracy cost, over runs of which some may have missed it.

    Returns:
        ``reached`` (how many runs did) and ``of`` (how many there are); the means ``rounds``, ``virtual_s``,
        ``energy_j`` and ``bytes`` (both ways), None unless every run reached it, times and energies also where no
        network was simulated; ``intervals`` of these means; and ``at_least``, what each mean is larger than where a run
        missed the target: see :func:`sflam.report.statistics.censored`.
    """
    costs, spent = costs_of(runs, target), [_spent(run) for run in runs]
    each = {key: censored(costs[key], [item[key] for item in spent]) for key in COSTS}
    reached = each["rounds"].reached
    known = reached == len(runs)
    return {
        "reached": reached,
        "of": len(runs),
        **{key: found.cost.mean if found.cost else None for key, found in each.items()},
        "intervals": {
            key: found.cost.to_dict()
            for key, found in each.items()
            if found.cost and found.cost.half is not None
        },
        "at_least": {key: None if known else found.at_least for key, found in each.items()},
    }


def costs_of(runs: Sequence[Sequence[RoundRecord]], target: float) -> dict[str, list[float | None]]:
    """Return key of ``COSTS`` -> what each run had spent when it reached an accuracy; None where it did not."""
    found = [first_at(run, target) for run in runs]
    return {key: [None if cost is None else cost[key] for cost in found] for key in COSTS}


def first_at(run: Sequence[RoundRecord], target: float) -> dict[str, Any] | None:
    """Return what a run had cost after the first round whose accuracy is ``target`` or more; None if there is none.

    The accuracy is that of the rounds' evaluations: on the validation part where there is one.
    """
    for number, record in enumerate(run, start=1):
        accuracy = record.evaluated_accuracy
        if accuracy is not None and accuracy >= target:
            return _spent(run[:number])
    return None


def _spent(run: Sequence[RoundRecord]) -> dict[str, Any]:
    """Return what the rounds of a run cost in all."""
    last = run[-1].charge if run else None
    joules = [record.charge.energy for record in run if record.charge]
    return {
        "rounds": len(run),
        "virtual_s": last.clock if last else None,
        "energy_j": sum(joules) if last else None,
        "bytes": sum(record.total_bytes for record in run),
    }


def targets_of(
    found: Sequence[Compared], wanted: Sequence[float] = (), unlike: Sequence[str] = ()
) -> tuple[Target, ...]:
    """Return the targets: as wanted, or a share of the best method's final accuracy.

    Rounds are held against them, so they are on the part of the data that they were evaluated on.

    Args:
        found: the methods.
        wanted: accuracies in (0, 1].
        unlike: methods that use no network; where one of them is the best, perhaps out of reach for all others, the
            best of the others sets a target too.
    """
    if wanted:
        return tuple(Target(accuracy, "as given") for accuracy in sorted(wanted))
    validated = all(item.mean("validation_accuracy") is not None for item in found)
    key, where = ("validation_accuracy", " on validation samples") if validated else ("accuracy", "")

    def by(item: Compared) -> float:
        return item.mean(key) or 0.0

    best = max(found, key=by)
    rule = f"{100 * SHARE:g} % of what {best.name} reaches{where}"
    targets = [Target(SHARE * by(best), rule)]
    others = [item for item in found if item.name.partition(" ")[0] not in unlike]
    next_best = max(others, key=by, default=best)
    if by(next_best) < by(best):
        rule = f"{100 * SHARE:g} % of what {next_best.name} reaches{where}, the best over a network"
        targets.insert(0, Target(SHARE * by(next_best), rule))
    return tuple(targets)


def _written(found: Any) -> Mapping[str, Any] | None:
    return None if found is None else found.to_dict()


def _mean(values: Sequence[Any]) -> float | None:
    """Return the mean; None where a value is missing."""
    return None if None in values else statistics.fmean(values)
