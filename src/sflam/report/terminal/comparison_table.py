"""Methods side by side as tables: what they reached and cost, and what reaching a target accuracy cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from sflam.report.terminal.plain_table import plain_table
from sflam.report.totals import brief, duration, joules, percent
from sflam.units import human_bytes, human_si

Rows = Mapping[str, Mapping[str, Any]]
"""Method -> its means over seeds, as ``Compared.to_dict`` gives them."""
DEVICE = ("memory", "computing", "worst accuracy")
"""Heads of what a method asks of a device, and gives the one it serves worst."""
Written = tuple[list[str], list[list[str]]]
"""A head, and rows."""


def result_rows(found: Rows, *, rates: bool = False, device: bool = False) -> Written:
    """Return a head and a row per method of the means over seeds, the best accuracy first.

    Args:
        found: the methods.
        rates: also each method's learning rate.
        device: also rounds, and what it asks of a device.
    """
    how = brief if device else duration
    head = ["method", *["rate"] * rates, "accuracy", *["rounds"] * device, "time", "energy", "up", "down"]
    rows = []
    for method, item in sorted(found.items(), key=lambda pair: -pair[1]["accuracy"]):
        spread = item["accuracy_spread"]
        cells = [method, *([f"{item['learning_rate']:g}"] if rates else [])]
        cells.append(percent(item["accuracy"]) + ("" if spread is None else f" ± {100 * spread:.1f}"))
        cells += [f"{item['rounds']:g}"] * device
        cells += [_or_dash(item["virtual_s"], how), _or_dash(item["energy_j"], joules)]
        cells += [human_bytes(item["bytes_up"]), human_bytes(item["bytes_down"])]
        rows.append([*cells, *_device(item) * device])
    return [*head, *DEVICE * device], rows


def target_rows(found: Rows, *, reached: bool = False) -> Written:
    """Return a head and a row per method of what reaching the target cost, the fewest rounds first."""
    how = brief if reached else duration
    rows = []
    for method, item in sorted(found.items(), key=lambda pair: _last(pair[1]["to_target"]["rounds"])):
        cost = item["to_target"]
        cells = [_or_dash(cost["rounds"], lambda value: f"{value:.3g}"), _or_dash(cost["virtual_s"], how)]
        cells += [_or_dash(cost["energy_j"], joules), _or_dash(cost["bytes"], human_bytes)]
        rows.append([method, *[str(cost["reached"])] * reached, *cells])
    sent = "sent, both ways" if reached else "sent"
    return ["method", *["seeds that reach it"] * reached, "rounds", "time", "energy", sent], rows


def comparison_table(found: Rows, *, rates: bool = False) -> Table:
    """Return the table of ``result_rows`` for a terminal."""
    rounds = sorted({f"{item['rounds']:g}" for item in found.values()})
    title = f"after {' to '.join(rounds)} rounds; time and energy by the model of the network"
    return _table(title, result_rows(found, rates=rates))


def device_table(found: Rows) -> Table:
    """Return a row per method of what it asks of a device; the least memory first."""
    rows = sorted(found.items(), key=lambda pair: _last(pair[1]["device_memory_bytes"]))
    title = "of a device; computing in the run, by the cost model; test accuracy on the worst device's mix of classes"
    body = [[method, *_device(row)] for method, row in rows]
    return _table(title, (["method", *DEVICE], body))


def target_table(found: Rows, target: float, rule: str) -> Table:
    """Return the table of ``target_rows`` for a terminal."""
    return _table(f"to reach {percent(target)}, {rule}", target_rows(found))


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
