"""What newer comparisons also save: the grid of learning rates, what was asked for, targets, and which runs failed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

BY = ("accuracy", "loss")


def later(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``rates``, ``asked``, ``failed``, ``targets`` and ``baseline``; of an older one what it has.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: they cannot be drawn.
    """
    rates = values.get("rates")
    if rates is not None:
        rates = _expect_rates(rates)
        for row in values["methods"].values():
            _expect_rate(row["learning_rate"])
    asked = values.get("asked", list(values["methods"]))
    if not (isinstance(asked, list) and asked):
        raise ValueError("the list of what was compared is missing")
    failed = {str(run): str(why) for run, why in values.get("failed", {}).items()}
    targets = [
        {"accuracy": float(each["accuracy"]), "rule": str(each["rule"])}
        for each in values.get("targets", [values["target"]])
    ]
    for row in values["methods"].values():
        if "targets" in values and len(row["to_targets"]) != len(targets):
            raise ValueError("a method's costs of the targets are missing")
    baseline = str(values.get("baseline", ""))
    known = all("against_baseline" in row for name, row in values["methods"].items() if name != baseline)
    return {
        "rates": rates,
        "asked": asked,
        "failed": failed,
        "targets": targets,
        "baseline": baseline if baseline in values["methods"] and known else "",
    }


def is_finite(value: object) -> bool:
    """Return whether a value of JSON is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _expect_rates(rates: Mapping[str, Any]) -> dict[str, Any]:
    """Return a grid as ``RateGrid.to_dict`` wrote it."""
    grid = [_expect_rate(rate) for rate in rates["grid"]]
    by, methods = rates["by"], rates["methods"]
    if rates.get("part", "validation") != "validation":
        raise ValueError(f"its rates are chosen on {rates['part']!r}")
    if not grid or by not in BY or type(rates["seed"]) is not int or not methods:
        raise ValueError("its learning rates are not named")
    for tried in methods.values():
        if [_expect_rate(item["learning_rate"]) for item in tried] != grid:
            raise ValueError("a method was not tried at every learning rate")
        for item in tried:
            known = item[by] is None or is_finite(item[by])
            if not known or ("why" in item and type(item["diverged"]) is not bool):
                raise ValueError(f"{by} at rate {item['learning_rate']:g} is {item[by]!r}")
    return {**rates, "grid": grid}


def _expect_rate(rate: Any) -> float:
    if not (is_finite(rate) and rate > 0):
        raise ValueError(f"a learning rate is {rate!r}")
    return float(rate)
