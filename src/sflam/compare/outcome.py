"""The result of a variant: means over its seeds, and the cost of reaching a target accuracy."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sflam.records.history import RoundRecord

SHARE = 0.95
"""Without a target: this share of the best method's final accuracy."""
EXACT = ("accuracy", "validation_accuracy", "virtual_s", "energy_j", "device_flop", "worst_device_accuracy")


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

    def mean(self, key: str) -> float | None:
        """Return the mean over seeds of a number of the results; None where a run has none."""
        return _mean([result.get(key) for result in self.results])

    @property
    def spread(self) -> float | None:
        """Standard deviation of the accuracy over seeds, with n - 1; None for one seed."""
        shares = [float(result["accuracy"]) for result in self.results]
        return statistics.stdev(shares) if len(shares) > 1 else None

    def to_dict(self, target: float | None = None) -> dict[str, Any]:
        """Return the means for JSON, SI units; a count of bytes is a whole number where all seeds agree.

        Args:
            target: an accuracy in [0, 1]; adds ``to_target``, the mean cost of reaching it.
        """
        found = {
            "accuracy": self.mean("accuracy"),
            "accuracy_spread": self.spread,
            "validation_accuracy": self.mean("validation_accuracy"),
            **{key: self.mean(key) for key in ("rounds", "virtual_s", "energy_j", "bytes_up", "bytes_down")},
            "device_memory_bytes": self.mean("device_memory"),
            "device_flop": self.mean("device_flop"),
            "worst_device_accuracy": self.mean("worst_device_accuracy"),
        }
        whole = {
            key: int(value)
            for key, value in found.items()
            if value is not None and value.is_integer() and key not in EXACT
        }
        reached = {} if target is None else {"to_target": to_target(self.records, target)}
        rate = {"learning_rate": self.learning_rate}
        return found | whole | rate | reached | {"runs": [result["run_dir"] for result in self.results]}


def to_target(runs: Sequence[Sequence[RoundRecord]], target: float) -> dict[str, Any]:
    """Return the mean over runs of what reaching an accuracy cost.

    Returns:
        ``reached`` (how many runs did), ``rounds``, ``virtual_s``, ``energy_j`` and ``bytes`` (both ways); all None
        unless every run reached it, times and energies also where no network was simulated.
    """
    found = [cost for cost in (first_at(run, target) for run in runs) if cost is not None]
    names = ("rounds", "virtual_s", "energy_j", "bytes")
    if len(found) < len(runs):
        return {"reached": len(found), **dict.fromkeys(names)}
    return {"reached": len(found), **{name: _mean([item[name] for item in found]) for name in names}}


def first_at(run: Sequence[RoundRecord], target: float) -> dict[str, Any] | None:
    """Return what a run had cost after the first round whose accuracy is ``target`` or more; None if there is none.

    The accuracy is that of the rounds' evaluations: on the validation part where there is one.
    """
    joules, sent = 0.0, 0
    for number, record in enumerate(run, start=1):
        joules += record.charge.energy if record.charge else 0.0
        sent += record.total_bytes
        accuracy = record.evaluated_accuracy
        if accuracy is not None and accuracy >= target:
            return {
                "rounds": number,
                "virtual_s": record.charge.clock if record.charge else None,
                "energy_j": joules if record.charge else None,
                "bytes": sent,
            }
    return None


def target_of(found: Sequence[Compared], wanted: float | None) -> tuple[float, str]:
    """Return the target accuracy and how it was chosen: as wanted, or a share of the best method's final accuracy.

    Rounds are held against it, so it is on the part of the data that they were evaluated on.
    """
    if wanted is not None:
        return wanted, "as given"
    validated = all(item.mean("validation_accuracy") is not None for item in found)
    key, where = ("validation_accuracy", " on validation samples") if validated else ("accuracy", "")
    best = max(found, key=lambda item: item.mean(key) or 0.0)
    return SHARE * (best.mean(key) or 0.0), f"{100 * SHARE:g} % of what {best.name} reaches{where}"


def _mean(values: Sequence[Any]) -> float | None:
    """Return the mean; None where a value is missing."""
    return None if None in values else statistics.fmean(values)
