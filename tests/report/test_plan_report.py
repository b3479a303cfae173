"""A plan for people: the table says every device, the totals and the gap; the pictures are written whole."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from sflam.plan import ALL_LOCAL, NO_DEVICES, DevicePlans, Plan, ShadowPrices, Status
from sflam.report.terminal.edge_table import costs_table
from sflam.report.terminal.plan_table import FIRST, LAST, front_table, methods_table, plan_table, summary
from sflam.units import human_si


def made(count: int, *, objective: float = 1.5, bound: float = 1.5, **columns: object) -> Plan:
    """Return a plan whose devices differ."""
    each = np.arange(1, count + 1, dtype=float)
    output = {"cut": 1, "bits": 8, "bandwidth": each * 1e6, "power": each / 1e3, "clock": 1e9}
    output |= {"compute_s": 0.5, "transmit_s": each / 10, "compute_j": 0.25, "transmit_j": 0.25}
    return Plan(
        method="optimal",
        devices=DevicePlans(count, **(output | columns)),  # type: ignore[arg-type]
        latency=0.5 + count / 10,
        energy=count / 2,
        objective=objective,
        lower_bound=bound,
        status=Status.OPTIMAL if objective <= bound * (1 + 1e-9) else Status.FEASIBLE,
        solve_s=0.01,
    )


NONE = Plan(
    method="optimal",
    devices=NO_DEVICES,
    latency=np.inf,
    energy=np.inf,
    objective=np.inf,
    lower_bound=np.inf,
    status=Status.INFEASIBLE,
    advice=("the deadline is 3 s below the shortest round; allow 4 s",),
)


def lines(renderable: object, width: int = 80) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(renderable)
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_what_limits_are_worth_names_those_that_bind_and_the_device_with_most_to_gain() -> None:
    none = np.zeros(3)
    prices = ShadowPrices(
        bandwidth=2e-8,
        deadline=0.5,
        power=np.array([0.0, 3.0, 1.0]),
        radio_cap=none,
        compute_cap=none,
        energy_cap=np.array([0.25, 0.0, 0.0]),
    )
    shown = summary(replace(made(3), shadow_prices=prices), ["a", "b", "c"]).splitlines()[2]
    assert shown == (
        "one more MHz takes 0.02 off the objective, a second of the deadline 0.5, a W of b's power 3, "
        "a J of a's energy_cap 0.25"
    )
    assert "more MHz" not in summary(made(3))


def test_every_device_is_a_row_and_fits_a_terminal() -> None:
    shown = lines(plan_table(made(3), ["pi", "phone", "a-rather-long-name-of-one"]))
    text = "\n".join(shown)
    assert "…" not in text
    (row,) = [line.split() for line in shown if line.lstrip().startswith("phone")]
    assert row == ["phone", "1", "8", "2", "2", "1", "0.5", "0.2", "0.5"]
    assert "3 devices over 6 MHz, a round 800 ms, energy 1.5 J" in text
    assert "objective 1.5, the optimum: certified gap 0 %; solved in 10 ms" in text


@pytest.mark.parametrize("count", [1, FIRST + LAST + 1, FIRST + LAST + 2, 5000])
def test_many_devices_show_the_first_and_the_last(count: int) -> None:
    rows = [
        line.split()[0]
        for line in lines(plan_table(made(count)))
        if line.split() and line.split()[0].isdigit()
    ]
    shown = count if count <= FIRST + LAST + 1 else FIRST + LAST
    assert len(rows) == shown and rows[-1] == str(count - 1)


def test_servers_local_users_and_subchannels_have_their_columns() -> None:
    plan = made(2, server=[3, ALL_LOCAL], server_clock=[2e9, 0.0], subchannels=[4, 0])
    first, second = (
        line.split() for line in lines(plan_table(plan)) if line.lstrip().startswith(("0 ", "1 "))
    )
    assert first[:6] == ["0", "3", "1", "8", "1", "(4)"] and first[8] == "2"
    assert second[:5] == ["1", "local", "1", "-", "-"]


def test_a_plan_that_is_none_says_why() -> None:
    assert summary(NONE) == "optimal: no plan holds the limits\n" + NONE.advice[0]
    assert lines(plan_table(NONE)) == summary(NONE).splitlines()


def test_a_gap_or_no_bound_is_reported() -> None:
    assert "holds all limits: certified gap 50 %" in summary(made(1, objective=1.5, bound=1.0))
    assert "no bound of its own" in summary(made(1, bound=-np.inf))


def test_methods_are_compared_with_the_best() -> None:
    shown = lines(methods_table([made(1, objective=3.0, bound=-np.inf), made(1), NONE]))
    ratios = [line.split()[2] for line in shown if line.lstrip().startswith("optimal")]
    assert ratios == ["1.0000", "2.0000", "-"]
    assert [line.split() for line in lines(front_table([(2.0, 1.0), (1.0, 3e-3)]))[3:5]] == [
        ["1", "s", "3", "mJ"],
        ["2", "s", "1", "J"],
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.5e6, "1.5 MHz"),
        (999.96, "1 kHz"),
        (0.0, "0 Hz"),
        (3e-11, "0.03 nHz"),
        (2e13, "20 THz"),
        (2e19, "20000 PHz"),
        (-5e-3, "-5 mHz"),
    ],
)
def test_quantities_are_short(value: float, text: str) -> None:
    assert human_si(value, "Hz") == text


def test_shares_of_an_unbounded_cost_are_not_numbers() -> None:
    assert str(costs_table(1.0, 2.0, 1.0)) == "of which delay 1 (25 %), energy 2 (50 %), instability 1 (25 %)"
    for parts in ((np.inf, 1.0, 0.0), (np.inf, 1.0, np.inf), (0.0, 0.0, 0.0)):
        output = str(costs_table(*parts))
        assert "nan" not in output and output.count("(-)") == 3
