"""Methods side by side as tables: what they came to, and what reaching a target accuracy cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from sflam.report.totals import duration, percent
from sflam.units import human_bytes, human_si


def comparison_table(found: Mapping[str, Mapping[str, Any]], *, rates: bool = False) -> Table:
    """Return a row per method of the means over seeds, as ``Compared.to_dict`` gives them; the best accuracy first.

    Args:
        found: method -> its means.
        rates: also tell each method's learning rate.
    """
    rounds = sorted({f"{one['rounds']:g}" for one in found.values()})
    title = f"after {' to '.join(rounds)} rounds; time and energy by the model of the network"
    extra = ("rate",) if rates else ()
    table = plain_table(title, ("method", *extra, "accuracy", "time", "energy", "up", "down"))
    for method, one in sorted(found.items(), key=lambda pair: -pair[1]["accuracy"]):
        spread = one["accuracy_spread"]
        table.add_row(
            method,
            *([f"{one['learning_rate']:g}"] if rates else []),
            percent(one["accuracy"]) + ("" if spread is None else f" ± {100 * spread:.1f}"),
            said(one["virtual_s"], duration),
            said(one["energy_j"], joules),
            said(one["bytes_up"], human_bytes),
            said(one["bytes_down"], human_bytes),
        )
    return table


def device_table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a row per method of what it asks of a device; the least memory first."""
    table = plain_table(
        "of a device; computing in the run, by the cost model", ("method", "memory", "computing")
    )

    def memory(pair: tuple[str, Mapping[str, Any]]) -> float:
        need = pair[1]["device_memory_bytes"]
        return math.inf if need is None else float(need)

    for method, one in sorted(found.items(), key=memory):
        table.add_row(method, said(one["device_memory_bytes"], human_bytes), said(one["device_flop"], flops))
    return table


def target_table(found: Mapping[str, Mapping[str, Any]], target: float, rule: str) -> Table:
    """Return a row per method of what reaching the target accuracy cost; the fewest rounds first."""
    title = f"to reach {percent(target)}, {rule}"
    table = plain_table(title, ("method", "rounds", "time", "energy", "sent"))

    def rounds(pair: tuple[str, Mapping[str, Any]]) -> float:
        cost = pair[1]["to_target"]["rounds"]
        return math.inf if cost is None else float(cost)

    for method, one in sorted(found.items(), key=rounds):
        cost = one["to_target"]
        table.add_row(
            method,
            said(cost["rounds"], lambda value: f"{value:.3g}"),
            said(cost["virtual_s"], duration),
            said(cost["energy_j"], joules),
            said(cost["bytes"], human_bytes),
        )
    return table


def said(value: float | None, how: Callable[[float], str]) -> str:
    """Return a number for people; ``-`` where there is none."""
    return "-" if value is None else how(value)


def joules(value: float) -> str:
    """Return an energy for people."""
    return human_si(value, "J")


def flops(value: float) -> str:
    """Return an amount of computing for people."""
    return human_si(value, "FLOP")


def plain_table(title: str, headers: Sequence[str]) -> Table:
    """Return an empty table: methods to the left, numbers to the right."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for header in headers:
        table.add_column(header, justify="left" if header == "method" else "right", no_wrap=True)
    return table
