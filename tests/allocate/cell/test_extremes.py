"""Numbers from all decades: a certificate, a reason why there is no plan, or one clear error; never a warning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sflam.allocate.cell import optimal
from sflam.allocate.cell.problem import Problem
from sflam.allocate.limits import LONGEST, RANGES
from sflam.allocate.referee import OPTIMAL_GAP
from sflam.errors import AllocationError
from sflam.plan import Plan, Status
from tests.allocate.cell.airtime import sharing_time
from tests.allocate.cell.builders import SEEDS, WORK, reference
from tests.allocate.cell.waits import waiting

OF_DEVICES = ("gain", "max_power", "max_clock", "flops_per_cycle", "kappa", "static_power", "energy_weight")
OF_NETWORK = (*OF_DEVICES, "noise", "bandwidth")
MAY_BE_ZERO = ("kappa", "static_power", "energy_weight", "delay", "base_s", "base_j")

SMALL = {"local_steps": 1e-3, "base_j": 1e-12}
"""Where the decades drawn begin above the range: what is below is of devices without rows."""

pytestmark = pytest.mark.filterwarnings("error")


def extreme_problem(seed: int) -> Problem:
    """Return a problem whose numbers are the reference's, one for all, or drawn over all decades of their range."""
    draw = np.random.default_rng(seed)
    count = int(draw.integers(1, 5))
    plain = reference(count)

    def drawn(name: str, usual: Any, size: int) -> Any:
        low, high, _ = RANGES[name]
        low = SMALL.get(name, low)
        kind = draw.random()
        if kind < 0.3:
            return np.broadcast_to(np.asarray(usual, float), (size,))
        if kind < 0.4 and name in MAY_BE_ZERO:
            return np.zeros(size)
        same = 1 if kind < 0.6 else size
        exponents = draw.uniform(np.log10(low), np.log10(high), same)
        return np.clip(np.broadcast_to(10**exponents, (size,)), low, high)

    network = plain.network
    changed = {name: drawn(name, getattr(network, name), count) for name in OF_DEVICES if name != "gain"}
    network = replace(
        network,
        gain=drawn("gain", network.gain[0], count)[None],
        bandwidth=drawn("bandwidth", network.bandwidth, 1),
        noise=float(drawn("noise", network.noise, 1)[0]),
        **changed,
    )
    weight = 10 ** draw.uniform(-9, np.log10(0.5))
    return Problem(
        network=network,
        workload=WORK,
        latency_weight=weight if draw.random() < 0.5 else 1 - weight,
        cut=draw.integers(0, 5, count),
        bits=draw.integers(1, 17, count),
        choose_clocks=bool(draw.random() < 0.6),
        local_steps=drawn("local_steps", 1.0, count),
        delay=drawn("delay", 0.0, count),
        base_s=float(drawn("base_s", 0.0, 1)[0]),
        base_j=float(drawn("base_j", 0.0, 1)[0]),
    )


def narrower(problem: Problem, plan: Plan, seed: int) -> Problem:
    """Return the problem with caps and a deadline near or far from what a plan takes."""
    draw, count, devices = np.random.default_rng(seed), len(problem), plan.devices

    def around(spent: Any) -> Any:
        near = np.exp(draw.uniform(-1, 1, count) * draw.choice([0.1, 3.0]))
        return np.where(draw.random(count) < 0.5, np.inf, spent * near)

    return problem.change(
        radio_cap=around(devices.transmit_j),
        compute_cap=around(devices.compute_j),
        energy_cap=around(devices.device_j),
        deadline=plan.latency * np.exp(draw.uniform(-0.1, 2)) if draw.random() < 0.5 else np.inf,
    )


def assert_certified_or_none(plan: Plan) -> None:
    if not len(plan.devices):
        assert plan.advice and "\n" not in plan.advice[0]
        return
    assert plan.status is Status.OPTIMAL, plan.advice
    assert plan.gap <= OPTIMAL_GAP and np.isfinite(plan.objective)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_all_decades_end_with_a_certificate_or_a_reason(seed: int) -> None:
    problem = extreme_problem(seed)
    plan = optimal.solve(problem)
    assert_certified_or_none(plan)
    if len(plan.devices):
        assert_certified_or_none(optimal.solve(narrower(problem, plan, seed)))


@pytest.mark.parametrize("waits", [False, True])
@settings(max_examples=40, deadline=None)
@given(SEEDS)
@example(114)
@example(436)
@example(219)
def test_shared_airtime_of_all_decades_ends_with_a_certificate_or_a_reason(waits: bool, seed: int) -> None:
    problem = sharing_time(extreme_problem(seed))
    plan = optimal.solve(waiting(problem, seed) if waits else problem)
    if not waits:
        assert_certified_or_none(plan)
    elif len(plan.devices):  # doubles may leave more of a gap there
        assert plan.status is not Status.INFEASIBLE and 0 < plan.lower_bound <= plan.objective


@settings(max_examples=30, deadline=None)
@given(SEEDS)
@example(38976)
@example(31019)
def test_limits_that_a_plan_holds_leave_it_possible(seed: int) -> None:
    problem = extreme_problem(seed)
    plan = optimal.solve(problem)
    if len(plan.devices) and plan.latency < LONGEST:
        devices, more = plan.devices, 1 + 1e-6
        again = optimal.solve(
            problem.change(
                radio_cap=devices.transmit_j * more,
                compute_cap=devices.compute_j * more,
                energy_cap=devices.device_j * more,
                deadline=plan.latency * more,
            )
        )
        assert again.status is Status.OPTIMAL and again.gap <= OPTIMAL_GAP, again.advice
        assert again.objective == pytest.approx(plan.objective, rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.floats(-16, -8), st.booleans())
def test_a_device_with_next_to_no_rows_is_planned_with_the_others(
    seed: int, exponent: float, every: bool
) -> None:
    """Simulations count 1e-9 rows for none; with 1e-7 mini-batches a plan is off by up to 2.4e-5, and says so."""
    count = 1 + seed % 4
    steps = np.full(count, 5.0)
    steps[slice(None) if every else 0] = 10**exponent
    plan = optimal.solve(reference(count).change(local_steps=steps))
    assert_certified_or_none(plan)
    assert len(plan.devices) == count


def test_most_of_all_decades_are_planned() -> None:
    plans = [optimal.solve(extreme_problem(seed)) for seed in range(60)]
    assert sum(len(plan.devices) > 0 for plan in plans) > 40


ANY = st.sampled_from([np.nan, np.inf, -np.inf, -1.0, 0.0, 5e-324, 1e-30, 1e-18, 1e6, 1e30, 1e308])
REQUEST = (
    "latency_weight",
    "deadline",
    "local_steps",
    "delay",
    "base_s",
    "base_j",
    "sensitivity",
    "averages",
)
REQUEST += ("made", "sent", "radio_cap", "compute_cap", "energy_cap")


@settings(max_examples=200, deadline=None)
@given(st.sampled_from((*OF_NETWORK, "memory", *REQUEST)), ANY, st.booleans())
def test_any_number_anywhere_is_planned_or_refused_in_one_line(name: str, value: float, alone: bool) -> None:
    plain = reference(3)
    try:
        if name in REQUEST:
            changed = plain.change(**{name: value})
        else:
            array = np.array(getattr(plain.network, name), float)
            if array.ndim and alone:
                array[..., 0] = value
            else:
                array = np.full_like(array, value) if array.ndim else value
            changed = plain.change(network=replace(plain.network, **{name: array}))
        plan = optimal.solve(changed)
    except AllocationError as error:
        text = str(error)
        assert "\n" not in text and ("must be" in text or "give" in text), text
        assert name in text or "payload" in text
    else:
        assert_certified_or_none(plan)


@pytest.mark.parametrize("delay", [1e3, 1e6, 1e9, 1e11])
def test_a_device_that_waits_long_costs_the_others_no_power(delay: float) -> None:
    """Who must wait for it anyway sends slowly: full power in a tiny band would cost 40 % of this objective."""
    plan = optimal.solve(reference(3, delay=np.array([delay, 0.0, 0.0])))
    assert plan.gap <= 1e-9 and plan.status is Status.OPTIMAL
    assert plan.devices.power[1:].max() < 0.2 * plan.devices.power[0]


def test_a_device_out_of_reach_is_named_with_the_limit() -> None:
    problem = reference(3)
    gain = problem.network.gain.copy()
    gain[0, 1] = 1e-18
    faint = problem.change(network=replace(problem.network, gain=gain))
    plan = optimal.solve(faint)
    assert plan.gap <= 1e-9 and plan.latency > 1e5
    gain[0, 1] = 1e-25
    plan = optimal.solve(problem.change(network=replace(problem.network, gain=gain)))
    assert not len(plan.devices)
    assert f"at most {LONGEST:g} s" in plan.advice[0] and "out of reach" in plan.advice[0]
