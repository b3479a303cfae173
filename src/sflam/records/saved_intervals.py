"""Intervals, targets and differences of a saved comparison's rows, as they were written, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sflam.records.saved_rates import is_finite

COSTS = ("rounds", "virtual_s", "energy_j", "bytes")
LESS = ("accuracy", "virtual_s", "energy_j", "bytes")


def expect_intervals(row: Mapping[str, Any]) -> None:
    """Raise ValueError, KeyError, TypeError or AttributeError where a row's intervals cannot be shown.

    Comparisons that were written before have none.
    """
    seeds = row.get("seeds", 1)
    if type(seeds) is not int or seeds < 1:
        raise ValueError(f"seeds is {seeds!r}")
    for each in row.get("intervals", {}).values():
        _expect(each)
    for cost in row.get("to_targets", []):
        _expect_cost(cost)
    less = row.get("against_baseline")
    if less is not None:
        for key in LESS:
            if less[key] is not None:
                _expect(less[key], single=True)


def _expect_cost(cost: Mapping[str, Any]) -> None:
    if not is_finite(cost["target"]) or type(cost["reached"]) is not int or type(cost["of"]) is not int:
        raise ValueError(f"the cost of a target is {cost!r}")
    for key in COSTS:
        for value in (cost[key], cost["at_least"][key]):
            if value is not None and not is_finite(value):
                raise ValueError(f"{key} is {value!r}")
    for each in cost["intervals"].values():
        _expect(each)


def _expect(each: Mapping[str, Any], *, single: bool = False) -> None:
    """Raise where this is no mean between the ends of its interval; a ``single`` value has none."""
    if single and each["low"] is None and each["high"] is None and is_finite(each["mean"]):
        return
    ends = [each[key] for key in ("low", "mean", "high")]
    if not all(map(is_finite, ends)) or sorted(ends) != ends or type(each["n"]) is not int:
        raise ValueError(f"an interval is {each!r}")
