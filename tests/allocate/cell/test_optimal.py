"""The exact solver: acceptance values, certificates, optimality conditions, limits, symmetries."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from sflam.allocate.cell import baselines, bcd, optimal
from sflam.allocate.cell.market import Market
from sflam.allocate.cell.problem import Problem
from sflam.allocate.curves import growth, psi
from sflam.allocate.limits import Impossible
from sflam.network.network import PER_DEVICE
from sflam.plan import Plan, Status
from tests.allocate.cell.builders import SEEDS, capped, random_problem, reference


def assert_certified(plan: Plan, gap: float = 1e-9) -> None:
    assert plan.status is Status.OPTIMAL and plan.advice == ()
    assert plan.lower_bound <= plan.objective * (1 + 1e-12) and plan.gap <= gap


def test_the_energy_is_jointly_convex_in_bandwidth_and_time() -> None:
    draw = np.random.default_rng(0)
    noise, payload, count = 1e-9, 1.35e7, 1_000_000
    (b0, b1), (t0, t1) = np.exp(draw.uniform(-4, 2, (2, 2, count))) * np.array([1e6, 10.0])[:, None, None]
    share = draw.random(count)

    def energy(b: np.ndarray, t: np.ndarray) -> np.ndarray:
        return noise * payload * growth(np.minimum(payload / (b * t), 300.0))

    def inside(b: np.ndarray, t: np.ndarray) -> np.ndarray:
        return payload / (b * t) < 300

    kept = inside(b0, t0) & inside(b1, t1)
    chord = share * energy(b0, t0) + (1 - share) * energy(b1, t1)
    middle = energy(share * b0 + (1 - share) * b1, share * t0 + (1 - share) * t1)
    assert kept.mean() > 0.5 and (middle[kept] <= chord[kept] * (1 + 1e-12)).all()


@pytest.mark.parametrize(
    ("problem", "objective", "latency", "energy"),
    [
        (reference(), 1.809162276, 2.8041, 0.8142),
        (reference(fixed=True), 1.708605234, 2.7306, 0.6866),
        (reference(50, 3), 4.380501332, None, None),
        (reference(20, 2, latency_weight=0.9), 2.049813111, None, None),
        (reference(20, 1, latency_weight=0.1), 0.602748892, None, None),
    ],
    ids=["clocks", "fixed", "K=50", "lam=0.9", "lam=0.1"],
)
def test_acceptance_values(
    problem: Problem, objective: float, latency: float | None, energy: float | None
) -> None:
    plan = optimal.solve(problem)
    assert_certified(plan)
    assert plan.objective == pytest.approx(objective, rel=1e-9)
    if latency is not None:
        assert (round(plan.latency, 4), round(plan.energy, 4)) == (latency, energy)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_random_problems_are_certified(seed: int) -> None:
    assert_certified(optimal.solve(random_problem(seed)))


@pytest.mark.slow
def test_four_hundred_random_problems_are_certified() -> None:
    for seed in range(400):
        assert_certified(optimal.solve(random_problem(seed)))


@settings(max_examples=8, deadline=None)
@given(SEEDS)
def test_caps_and_deadlines_are_held_and_certified(seed: int) -> None:
    free = random_problem(seed, most=12)
    best = optimal.solve(free)
    plan = optimal.solve(capped(free, best, seed))
    if plan.status is Status.INFEASIBLE:
        assert plan.advice and not plan.devices
    else:
        assert_certified(plan)
        assert plan.objective >= best.objective * (1 - 1e-9)


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_no_baseline_is_better(seed: int) -> None:
    problem = random_problem(seed, most=12)
    best = optimal.solve(problem)
    others = [
        baselines.equal(problem),
        baselines.equal_bandwidth(problem),
        baselines.random(problem, seed),
    ]
    if not problem.choose_clocks:  # with clocks the descent may need seconds
        others.append(bcd.solve(problem))
    for other in others:
        assert other.status is not Status.INFEASIBLE
        assert best.lower_bound <= best.objective <= other.objective * (1 + 1e-9)


@settings(max_examples=12, deadline=None)
@given(SEEDS)
def test_the_plan_meets_the_optimality_conditions(seed: int) -> None:
    """At the prices found, no device would move, and both prices balance."""
    problem = random_problem(seed, most=12)
    cell = problem.cell
    if not (cell.weight > 0).any():
        return
    solution = Market(cell).solve()
    answer, price = solution.answer, solution.price
    b, t, x = answer.bandwidth, answer.transmit, answer.efficiency
    assert b.sum() == pytest.approx(cell.bandwidth, rel=1e-12)
    np.testing.assert_allclose(cell.delay + answer.compute + t, solution.time, rtol=1e-12)
    at_corner = solution.time == solution.shortest
    if not at_corner:
        assert answer.time_price.sum() == pytest.approx(cell.latency_weight, rel=1e-8)
    hot = cell.noise * b * np.expm1(x) > cell.max_power * (1 - 1e-9)
    marginal = cell.weight * cell.noise * t * psi(x)  # what a hertz saves
    if not at_corner:
        np.testing.assert_allclose(marginal[~hot], price, rtol=1e-4)
    assert (marginal[hot] <= price * (1 + 1e-4)).all()
    gain = cell.weight * cell.slowing_gain(np.maximum(answer.compute, cell.least_compute))
    slow = (answer.compute > cell.least_compute * (1 + 1e-9)) & (cell.cycles > 0)
    np.testing.assert_allclose(answer.time_price[slow], gain[slow], rtol=1e-4, atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_the_order_of_devices_does_not_matter(seed: int) -> None:
    problem = random_problem(seed, most=12)
    order = np.random.default_rng(seed).permutation(len(problem))
    network = problem.network
    shuffled = problem.change(
        network=replace(
            network,
            gain=network.gain[:, order],
            **{name: getattr(network, name)[order] for name in PER_DEVICE},
        ),
        **{name: problem.each(name)[order] for name in ("cut", "bits", "delay")},
    )
    plain, other = optimal.solve(problem), optimal.solve(shuffled)
    assert other.objective == pytest.approx(plain.objective, rel=1e-10)
    np.testing.assert_allclose(other.devices.bandwidth, plain.devices.bandwidth[order], rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-6, 1e3])
def test_units_do_not_matter(scale: float) -> None:
    """More noise on better channels, and a wider band for larger payloads, are the same problem."""
    problem = reference()
    network = problem.network
    louder = replace(network, gain=network.gain * scale, noise=network.noise * scale)
    assert optimal.solve(problem.change(network=louder)).objective == pytest.approx(
        optimal.solve(problem).objective, rel=1e-11
    )
    # Hz and nats scaled together leave seconds as they are; noise per Hz keeps joules
    cell = problem.cell
    wider = replace(
        cell, payload=cell.payload * scale, bandwidth=cell.bandwidth * scale, noise=cell.noise / scale
    )
    assert Market(wider).solve().objective == pytest.approx(Market(cell).solve().objective, rel=1e-11)


def test_a_grid_of_three_devices_holds_nothing_better() -> None:
    problem = reference(3, fixed=True)
    cell = problem.cell
    best = Market(cell).solve().objective
    shares = np.linspace(0.02, 0.96, 48)
    b0, b1 = (each.ravel() for each in np.meshgrid(shares, shares))
    kept = b0 + b1 < 0.98
    split = np.stack([b0, b1, 1 - b0 - b1])[:, kept] * cell.bandwidth  # [3, n]
    found = np.inf
    for time in np.linspace(0.3, 4, 400):
        t = (time - cell.busy)[:, None]
        with np.errstate(over="ignore"):
            power = (cell.noise[:, None] * split) * np.expm1(
                cell.payload[:, None] / (split * np.maximum(t, 1e-9))
            )
        fine = (t > 0).all() & (power <= cell.max_power[:, None]).all(axis=0)
        if fine.any():
            energy = (cell.weight[:, None] * power * t).sum(axis=0)
            found = min(found, cell.latency_weight * time + energy[fine].min())
    assert best <= found <= best * 1.01


def test_without_energy_the_shortest_round_is_planned() -> None:
    problem = reference(latency_weight=1.0)
    plan = optimal.solve(problem)
    assert_certified(plan)
    assert plan.latency == pytest.approx(Market(problem.cell).shortest(), rel=1e-9)
    assert plan.objective == plan.latency
    np.testing.assert_allclose(plan.devices.power, problem.network.max_power, rtol=1e-6)


def test_without_latency_the_deadline_is_used_up() -> None:
    plan = optimal.solve(reference(latency_weight=0.0, deadline=5.0))
    assert_certified(plan)
    assert plan.latency == pytest.approx(5.0, rel=1e-12)
    later = optimal.solve(reference(latency_weight=0.0, deadline=6.0))
    assert later.energy < plan.energy


def test_a_loose_deadline_changes_nothing_and_a_tight_one_binds() -> None:
    best = optimal.solve(reference())
    assert optimal.solve(reference(deadline=3.0)).objective == pytest.approx(best.objective, rel=1e-12)
    tight = optimal.solve(reference(deadline=2.2))
    assert_certified(tight)
    assert tight.latency == pytest.approx(2.2) and tight.objective > best.objective


def test_a_deadline_below_the_shortest_round_is_infeasible_and_says_by_how_much() -> None:
    problem = reference()
    shortest = Market(problem.cell).shortest()
    plan = optimal.solve(problem.change(deadline=shortest - 0.25))
    assert plan.status is Status.INFEASIBLE and not plan.devices and plan.objective == np.inf
    assert f"{0.25:.6g} s short" in plan.advice[0]
    assert f"the shortest possible round takes {shortest:.6g} s" in plan.advice[0]
    fixed = optimal.solve(problem.change(deadline=2.0, base_s=1.5))
    assert f"the shortest possible round takes {shortest + 1.5:.6g} s" in fixed.advice[0]
    nearly = optimal.solve(problem.change(deadline=shortest * (1 + 1e-12)))
    assert nearly.status is Status.OPTIMAL


def test_one_device_gets_the_whole_band() -> None:
    plan = optimal.solve(reference(1))
    assert_certified(plan)
    assert plan.devices.bandwidth.tolist() == pytest.approx([20e6])


def test_identical_devices_get_identical_shares() -> None:
    network = reference(1).network
    many = replace(
        network,
        gain=np.repeat(network.gain, 7, axis=1),
        **{name: np.repeat(getattr(network, name), 7) for name in PER_DEVICE},
    )
    plan = optimal.solve(reference().change(network=many))
    assert_certified(plan)
    np.testing.assert_allclose(plan.devices.bandwidth, 20e6 / 7, rtol=1e-12)


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 1e4, 1e8])
def test_extreme_gains(factor: float) -> None:
    """One device far from all others in strength, and all of them."""
    problem = reference(5)
    gain = problem.network.gain.copy()
    gain[0, 2] *= factor
    assert_certified(optimal.solve(problem.change(network=replace(problem.network, gain=gain))))
    gain = problem.network.gain * factor
    assert_certified(optimal.solve(problem.change(network=replace(problem.network, gain=gain))))


def test_free_energy_of_one_device() -> None:
    """A device whose energy weighs nothing sends at full power (no division by its weight)."""
    problem = reference(6)
    weight = problem.network.energy_weight.copy()
    weight[3] = 0.0
    plan = optimal.solve(problem.change(network=replace(problem.network, energy_weight=weight)))
    assert_certified(plan)
    assert plan.devices.power[3] == pytest.approx(problem.network.max_power[3])
    assert plan.devices.clock[3] == pytest.approx(problem.network.max_clock[3])


def test_local_steps_repeat_the_step() -> None:
    once, thrice = optimal.solve(reference()), optimal.solve(reference(local_steps=3))
    assert_certified(thrice)
    assert thrice.objective == pytest.approx(3 * once.objective, rel=1e-11)
    np.testing.assert_allclose(thrice.devices.power, once.devices.power, rtol=1e-6)


def test_static_power_makes_slow_clocks_costly() -> None:
    problem = reference(latency_weight=0.01)
    idle = replace(problem.network, static_power=np.full(20, 0.5))
    slow, fast = optimal.solve(problem), optimal.solve(problem.change(network=idle))
    assert_certified(fast)
    assert fast.devices.clock.mean() > slow.devices.clock.mean()


def test_impossible_caps_are_reported() -> None:
    for caps in ({"radio_cap": 1e-9}, {"energy_cap": 1e-9}):
        plan = optimal.solve(reference(3).change(**caps))
        assert plan.status is Status.INFEASIBLE and "cap" in plan.advice[0]
    slow = optimal.solve(reference(3).change(compute_cap=1e-12))
    assert slow.status is Status.OPTIMAL and (slow.devices.compute_j <= 1e-12 * (1 + 1e-9)).all()


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("cap", ["radio_cap", "energy_cap"])
def test_a_cap_that_is_too_small_says_what_is_needed(cap: str, fixed: bool) -> None:
    """With a little more than what the advice says, some round holds the cap."""
    problem = reference(3, fixed=fixed, cut=2)
    problem = problem.change(network=replace(problem.network, static_power=np.full(3, 0.1)))
    caps = np.full(3, np.inf)
    caps[1] = 1e-4
    [advice] = optimal.solve(problem.change(**{cap: caps})).advice
    found = re.search(
        r"of device 1 are too small.* more than (\S+) J, (\S+) J of computing .* (\S+) J of sending", advice
    )
    assert found is not None, advice
    both, computing, sending = map(float, found.groups())
    assert both == pytest.approx(computing + sending, rel=2e-4)
    problem = problem.change(network=replace(problem.network, static_power=np.zeros(3)))
    caps[1] = (sending if cap == "radio_cap" else both) * 1.01
    assert optimal.solve(problem.change(**{cap: caps})).status is not Status.INFEASIBLE


def test_a_market_without_time_is_impossible() -> None:
    with pytest.raises(Impossible, match="s short; raise it"):
        Market(replace(reference(3).cell, deadline=0.01)).solve()


def test_a_jump_of_the_worth_of_time_is_certified() -> None:
    """At a corner of two caps a second is worth one thing before and another after: the optimum may lie between."""
    problem = random_problem(170, most=6)
    free = optimal.solve(problem)
    share = np.random.default_rng(170).uniform(0.9, 1.4)
    problem = capped(problem, free, 170).change(energy_cap=share * free.devices.device_j)
    plan, cell = optimal.solve(problem), problem.cell
    worth = [float(Market(cell).clear(plan.latency * (1 + side)).time_price.sum()) for side in (-1e-9, 1e-9)]
    assert worth[0] > 1.02 * cell.latency_weight and worth[1] < 0.98 * cell.latency_weight
    assert plan.status is Status.OPTIMAL and plan.gap < 1e-9
