"""A plan in the terminal: a row per device, the totals beneath, how far from the best; and methods side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from sflam.plan import ALL_LOCAL, DevicePlan, EdgeShadowPrices, Plan, ShadowPrices, Status
from sflam.report.terminal.plain_table import plain_table
from sflam.report.totals import duration
from sflam.units import human_si

FIRST, LAST = 20, 10


def plan_table(
    plan: Plan, names: Sequence[str] = (), title: str = "", *, several: bool = False
) -> RenderableType:
    """Return a rich table of what every device is given; many devices show the first and the last.

    Args:
        plan: any plan; an infeasible plan has no rows, only its advice.
        names: of the devices, in order; numbers where empty.
        title: above the table.
        several: whether there are several servers to be at; else shown where devices differ.
    """
    text = Text(summary(plan, names))
    if not len(plan.devices):
        return text
    devices = plan.devices
    placed = several or len(set(devices.server.tolist())) > 1
    shared = bool((devices.server_clock > 0).any())
    columns: list[tuple[str, Callable[[DevicePlan], str]]] = [
        *[("server", _away(lambda device: str(device.server), "local"))] * placed,
        ("layers" if several else "cut", lambda device: str(device.cut)),
        *[("bits", _away(lambda device: str(device.bits)))] * (not several),
        *[("bits down", lambda device: str(device.bits_down))] * (len(set(devices.bits_down.tolist())) > 1),
        ("airtime %", lambda device: _short(100 * device.airtime))
        if devices.shares_time
        else ("MHz", _away(_band)),
        ("mW", _away(lambda device: _short(device.power * 1e3))),
        ("GHz", lambda device: _short(device.clock / 1e9)),
        *[("edge GHz" if several else "server GHz", _away(lambda device: _short(device.server_clock / 1e9)))]
        * shared,
        ("own s" if several else "compute s", lambda device: _short(device.compute_s)),
        ("send s", _away(lambda device: _short(device.transmit_s))),
        ("J", lambda device: _short(device.compute_j + device.transmit_j + device.receive_j + device.idle_j)),
    ]
    table = plain_table(["device", *(header for header, _ in columns)], title, left=("device",))
    # Where the terminal is narrow, names take two lines, and numbers stay whole.
    table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"
    count = len(devices)
    for index in range(count):
        if count > FIRST + LAST + 1 and FIRST <= index < count - LAST:
            if index == FIRST:
                table.add_row(*["..."] * len(table.columns))
            continue
        device = devices[index]
        table.add_row(names[index] if names else str(index), *(cell(device) for _, cell in columns))
    return Group(table, text)


def _band(device: DevicePlan) -> str:
    return _short(device.bandwidth / 1e6) + f" ({device.subchannels})" * bool(device.subchannels)


def _away(cell: Callable[[DevicePlan], str], local: str = "-") -> Callable[[DevicePlan], str]:
    """Return the cell of a device that has a server, and ``local`` for a device that has none."""
    return lambda device: local if device.server == ALL_LOCAL else cell(device)


def _short(value: float) -> str:
    """Return three digits, without an exponent where that stays short."""
    return f"{value:.3g}" if not 0 < abs(value) < 1e-4 else f"{value:.1e}"


def summary(plan: Plan, names: Sequence[str] = ()) -> str:
    """Return the plan in a few lines: totals, the certified gap, what limits are worth, advice."""
    if not len(plan.devices):
        return "\n".join([f"{plan.method}: no plan holds the limits", *plan.advice])
    used = float(plan.devices.device_j.sum())
    apart = plan.energy - used
    server = f" (server {human_si(apart, 'J')})" if apart > 1e-6 * used else ""
    bands = (plan.devices.bandwidth * plan.devices.airtime).sum()
    lines = [
        f"{plan.method}: {len(plan.devices)} devices over {human_si(float(bands), 'Hz')}, "
        f"a round {human_si(plan.latency, 's', 4)}, energy {human_si(plan.energy, 'J', 4)}{server}",
        f"{_promise(plan)}; solved in {human_si(plan.solve_s, 's')}",
    ]
    if plan.shadow_prices is not None:
        prices = plan.shadow_prices
        lines.append(
            _worth(prices, names) if isinstance(prices, ShadowPrices) else _worth_of_servers(prices, names)
        )
    return "\n".join([*lines, *plan.advice])


def _worth(prices: ShadowPrices, names: Sequence[str]) -> str:
    """Return what one more unit of every limit that binds takes off the objective; of devices', the largest."""
    unit, worth = ("MHz", prices.bandwidth * 1e6)
    if prices.airtime > 0:
        unit, worth = ("percent of airtime", prices.airtime / 100)
    parts = [f"one more {unit} takes {_short(worth)} off the objective"]
    if prices.deadline > 0:
        parts.append(f"a second of the deadline {_short(prices.deadline)}")
    for unit, limit in (("W", "power"), ("J", "radio_cap"), ("J", "compute_cap"), ("J", "energy_cap")):
        worths = getattr(prices, limit)
        if (worths > 0).any():
            best = int(worths.argmax())
            owner = names[best] if names else f"device {best}"
            parts.append(f"a {unit} of {owner}'s {limit} {_short(float(worths[best]))}")
    return ", ".join(parts)


def _worth_of_servers(prices: EdgeShadowPrices, names: Sequence[str]) -> str:
    """Return where one more unit of a server, or of a user's power, takes most off the objective."""
    parts = []
    for unit, scale, limit in (("MHz", 1e6, "bandwidth"), ("GHz", 1e9, "clock")):
        worth = getattr(prices, limit) * scale
        if (worth > 0).any():
            best = int(worth.argmax())
            parts.append(
                f"one more {unit} of server {best}'s {limit} takes {_short(float(worth[best]))} off the objective"
            )
    if (prices.power > 0).any():
        best = int(prices.power.argmax())
        owner = names[best] if names else f"user {best}"
        parts.append(f"a W of {owner}'s power {_short(float(prices.power[best]))}")
    return ", ".join(parts) or "no server's band or clock, and no user's power, holds the objective up"


def _promise(plan: Plan) -> str:
    found = f"objective {plan.objective:.6g}"
    if plan.status is Status.INFEASIBLE:
        return f"{found}, infeasible"
    if math.isfinite(plan.gap):
        word = "the optimum" if plan.status is Status.OPTIMAL else "holds all limits"
        return f"{found}, {word}: certified gap {100 * plan.gap:.2g} %"
    return f"{found}, holds all limits, no bound of its own"


def methods_table(plans: Sequence[Plan]) -> RenderableType:
    """Return a table of several methods on one problem, with the ratio of each objective to the best."""
    best = min((item.objective for item in plans if item.status is not Status.INFEASIBLE), default=math.nan)
    headers = ("method", "objective", "ratio", "round", "energy", "status", "solved in")
    table = plain_table(headers, left=("method", "status"))
    for plan in sorted(plans, key=lambda item: item.objective):
        found = math.isfinite(plan.objective)
        table.add_row(
            plan.method,
            f"{plan.objective:.6g}" if found else "-",
            f"{plan.objective / best:.4f}" if found and best > 0 else "-",
            duration(plan.latency) if found else "-",
            human_si(plan.energy, "J") if found else "-",
            plan.status.value,
            human_si(plan.solve_s, "s"),
        )
    return table


def front_table(points: Sequence[tuple[float, float]]) -> RenderableType:
    """Return a table of the front: the least energy for every time of a round."""
    table = plain_table(("round", "least energy"))
    for seconds, joules in sorted(points):
        table.add_row(human_si(seconds, "s", 4), human_si(joules, "J", 4))
    return table
