"""Methods side by side as tables: what they reached and cost, and what reaching a target accuracy cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from sflam.report.plus_minus import plus_minus
from sflam.report.statistics import interval_words
from sflam.report.terminal.plain_table import plain_table
from sflam.report.totals import percent
from sflam.units import human_bytes, human_si

Rows = Mapping[str, Mapping[str, Any]]
"""Method -> its means over seeds, as ``Compared.to_dict`` gives them."""
DEVICE = ("memory", "computing", "worst accuracy")
"""Heads of what a method asks of a device, and gives the one it serves worst."""
TARGET_UNITS = {"rounds": "", "virtual_s": "s", "energy_j": "J", "bytes": "B"}
"""What reaching a target costs -> its unit."""
Written = tuple[list[str], list[list[str]]]
"""A head, and rows."""


def result_rows(found: Rows, *, rates: bool = False, device: bool = False) -> Written:
    """Return a head and a row per method of the means over seeds with their intervals, the best accuracy first.

    Args:
        found: the methods.
        rates: also each method's learning rate.
        device: also rounds, and what it asks of a device.
    """
    head = ["method", *["rate"] * rates, "accuracy", *["rounds"] * device, "time", "energy", "up", "down"]
    rows = []
    for method, item in sorted(found.items(), key=lambda pair: -pair[1]["accuracy"]):
        cells = [method, *([f"{item['learning_rate']:g}"] if rates else [])]
        cells.append(_figure(item, "accuracy", "%"))
        cells += [_figure(item, "rounds", "")] * device
        cells += [_figure(item, key, unit) for key, unit in (("virtual_s", "s"), ("energy_j", "J"))]
        cells += [_figure(item, key, "B") for key in ("bytes_up", "bytes_down")]
        rows.append([*cells, *_device(item) * device])
    return [*head, *DEVICE * device], rows


def target_rows(found: Rows, *, place: int = 0) -> Written:
    """Return a head and a row per method of what reaching a target cost, the fewest rounds first.

    A method of which a seed missed the target has what its mean is larger than: that seed counts with all it spent.

    Args:
        found: the methods.
        place: of the target among the comparison's.
    """
    costs = {method: target_cost(item, place) for method, item in found.items()}
    rows = [
        [
            method,
            f"{cost['reached']} of {cost['of']}",
            *(_cost(cost, key, unit) for key, unit in TARGET_UNITS.items()),
        ]
        for method, cost in sorted(costs.items(), key=lambda pair: _order(pair[1]))
    ]
    return ["method", "reached by", "rounds", "time", "energy", "sent"], rows


def target_cost(row: Mapping[str, Any], place: int = 0) -> dict[str, Any]:
    """Return what reaching a target cost a method; of comparisons that were written before, what is known."""
    if "to_targets" in row:
        return dict(row["to_targets"][place])
    runs = row.get("runs")
    known = len(runs) if isinstance(runs, list) else 1
    return {"of": known, "intervals": {}, "at_least": {}, **row["to_target"]}


def baseline_rows(found: Rows, baseline: str) -> Written:
    """Return a head and a row per method of its differences to the baseline, the best accuracy first."""
    rows = []
    for method, item in sorted(found.items(), key=lambda pair: -pair[1]["accuracy"]):
        if method != baseline:
            less = item["against_baseline"]
            units = {"accuracy": "%", "virtual_s": "s", "energy_j": "J", "bytes": "B"}
            rows.append([method, *(plus_minus(less[key], unit, signed=True) for key, unit in units.items())])
    return ["method", "accuracy", "time", "energy", "sent"], rows


def comparison_table(found: Rows, *, rates: bool = False) -> Table:
    """Return the table of ``result_rows`` for a terminal."""
    rounds = sorted({f"{item['rounds']:g}" for item in found.values()})
    title = f"after {' to '.join(rounds)} rounds{intervals_note(found)}; time and energy by the model of the network"
    return _table(title, result_rows(found, rates=rates))


def intervals_note(found: Rows) -> str:
    """Return what ± is and over how many seeds, after a comma; nothing for one seed."""
    seeds = {int(item.get("seeds", 1)) for item in found.values()}
    return f", ± {interval_words(max(seeds))}" if max(seeds) > 1 else ""


def device_table(found: Rows) -> Table:
    """Return a row per method of what it asks of a device; the least memory first."""
    rows = sorted(found.items(), key=lambda pair: _last(pair[1]["device_memory_bytes"]))
    title = "of a device; computing in the run, by the cost model; test accuracy on the worst device's mix of classes"
    body = [[method, *_device(row)] for method, row in rows]
    return _table(title, (["method", *DEVICE], body))


def target_table(found: Rows, target: float, rule: str, place: int = 0) -> Table:
    """Return the table of ``target_rows`` for a terminal."""
    return _table(f"to reach {percent(target)}, {rule}", target_rows(found, place=place))


def baseline_table(found: Rows, baseline: str) -> Table:
    """Return the table of ``baseline_rows`` for a terminal."""
    return _table(f"less {baseline}, seed by seed{intervals_note(found)}", baseline_rows(found, baseline))


def _figure(row: Mapping[str, Any], key: str, unit: str) -> str:
    """Return a mean with its interval, where there are seeds for one."""
    return plus_minus(row.get("intervals", {}).get(key, row[key]), unit)


def _cost(cost: Mapping[str, Any], key: str, unit: str) -> str:
    """Return what reaching a target cost, or what that is larger than."""
    if cost[key] is not None:
        return plus_minus(cost["intervals"].get(key, cost[key]), unit)
    bound = cost["at_least"].get(key)
    return "-" if bound is None else f"> {plus_minus(bound, unit)}"


def _order(cost: Mapping[str, Any]) -> tuple[float, float]:
    return _last(cost["rounds"]), -cost["reached"]


def _device(means: Mapping[str, Any]) -> list[str]:
    flop = _or_dash(means["device_flop"], lambda value: human_si(value, "FLOP"))
    # Comparisons that were written before do not have the last one.
    return [
        _or_dash(means["device_memory_bytes"], human_bytes),
        flop,
        _or_dash(means.get("worst_device_accuracy"), percent),
    ]


def _last(value: float | None) -> float:
    return math.inf if value is None else float(value)


def _or_dash(value: float | None, how: Callable[[float], str]) -> str:
    return "-" if value is None else how(value)


def _table(title: str, written: tuple[Sequence[str], Sequence[Sequence[str]]]) -> Table:
    table = plain_table(written[0], title, left=("method",), wraps=("method",))
    for row in written[1]:
        table.add_row(*row)
    return table
