"""Bits up and down together against every combination of them, with the bound, limits and corners."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from sflam.allocate.cell import bits, bits_both, optimal
from sflam.allocate.cell.bit_pairs import BitPairs
from sflam.allocate.cell.problem import Problem
from sflam.plan import Status
from tests.allocate.cell.builders import reference

RATE = 40e6


def place(problem: Problem, rate: float = RATE) -> Problem:
    """Return the problem whose way down takes what its bits do; by hand, from the workload alone."""
    widths, cuts = problem.each("bits_down").tolist(), problem.each("cut").tolist()
    sizes = [problem.workload.down_bits(cut, width) for cut, width in zip(cuts, widths, strict=True)]
    return problem.change(delay=np.array(sizes) / rate, receiving=np.array(sizes) / rate)


def drawn(count: int, seed: int, widths: tuple[int, ...], **changes: object) -> Problem:
    """Return a reference cell with sensitivities both ways, and radios that take power to receive."""
    draw = np.random.default_rng(2000 + seed)
    problem = reference(count, seed, fixed=bool(seed % 2), bit_choices=widths, **changes)
    network = replace(
        problem.network,
        receive_power=draw.uniform(0, 0.5, count) * (seed % 3 > 0),
        static_power=draw.uniform(0, 0.3, count) * (seed % 4 == 3),
        circuit_power=draw.uniform(0, 0.2, count) * (seed % 5 == 4),
    )
    return problem.change(
        network=network,
        sensitivity=20 / count * np.exp(draw.standard_normal(count)),
        sensitivity_down=20 / count * np.exp(draw.standard_normal(count) - 1),
        latency_weight=float(draw.choice([0.1, 0.5, 0.9])),
    )


def exhaustive(problem: Problem, put: object = place) -> tuple[float, list[int], list[int]]:
    """Return the least objective over all bits, each solved from scratch, and the bits up and down that have it."""
    best: tuple[float, list[int], list[int]] = (np.inf, [], [])
    pairs = list(itertools.product(problem.widths, repeat=2))
    for choice in itertools.product(pairs, repeat=len(problem)):
        up, down = (list(each) for each in zip(*choice, strict=True))
        plan = optimal.solve(put(problem.change(bits=up, bits_down=down)))  # type: ignore[operator]
        if plan.status is not Status.INFEASIBLE and plan.objective < best[0]:
            best = plan.objective, up, down
    return best


CASES = [(2, (3, 5, 8)), (3, (3, 6)), (4, (3, 6))]


@pytest.mark.parametrize(
    "seed", [seed if seed in (1, 4) else pytest.param(seed, marks=pytest.mark.slow) for seed in range(8)]
)
@pytest.mark.parametrize(("count", "widths"), CASES)
def test_equals_every_combination(count: int, widths: tuple[int, ...], seed: int) -> None:
    problem = drawn(count, seed, widths)
    best, _, _ = exhaustive(problem)
    plan = bits_both.solve(problem, place)
    assert plan.objective == pytest.approx(best, rel=1e-9)
    assert plan.lower_bound <= best * (1 + 1e-9) and plan.gap <= 1e-6
    assert plan.status is Status.OPTIMAL
    scored = optimal.solve(place(problem.change(bits=plan.devices.bits, bits_down=plan.devices.bits_down)))
    assert scored.objective == pytest.approx(plan.objective, rel=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_with_caps_and_a_deadline(seed: int) -> None:
    problem = drawn(3, seed, (3, 6))
    free = bits_both.solve(problem, place)
    draw = np.random.default_rng(seed)
    spent = free.devices.device_j
    limited = problem.change(
        deadline=free.latency * draw.uniform(0.97, 1.2),
        energy_cap=np.where(draw.random(3) < 0.6, spent * draw.uniform(0.97, 1.2, 3), np.inf),
    )
    best, _, _ = exhaustive(limited)
    plan = bits_both.solve(limited, place)
    if np.isinf(best):
        assert plan.status is Status.INFEASIBLE
        return
    assert plan.objective == pytest.approx(best, rel=1e-9)
    assert plan.lower_bound <= best * (1 + 1e-9)


def test_a_bound_without_the_combinations(monkeypatch: pytest.MonkeyPatch) -> None:
    """(2.18) with pairs lies below every combination and close to the best."""
    monkeypatch.setattr(bits_both, "ENUMERATED", 0)
    gaps = []
    for seed in range(4):
        problem = drawn(2, seed, (3, 5, 8))
        best, _, _ = exhaustive(problem)
        plan = bits_both.solve(problem, place)
        assert plan.lower_bound <= best * (1 + 1e-12) <= plan.objective * (1 + 2e-12)
        gaps.append(plan.gap)
    assert max(gaps) < 0.05 and np.median(gaps) < 0.01, gaps


@pytest.mark.parametrize("count", [20, 60])
def test_more_devices_are_certified_and_better_than_bits_up_alone(count: int) -> None:
    problem = drawn(count, 1, tuple(range(2, 17)))
    plan = bits_both.solve(problem, place)
    assert plan.gap < 5e-3
    assert plan.devices.bits_down.min() < plan.devices.bits_down.max()
    for width in (4, 8, 16):
        one = bits.solve(place(problem.change(bits_down=width)), certify=False)
        assert plan.objective < one.objective
    cold = bits_both.solve(problem, place, certify=False)
    assert cold.lower_bound == -np.inf and cold.advice and cold.objective == plan.objective


def test_one_width_down_is_the_choice_of_bits_up() -> None:
    """Where noise on the way down costs nothing the fewest bits win, and bits up are Algorithm Q's."""
    problem = drawn(12, 3, tuple(range(2, 9))).change(sensitivity_down=0.0)
    plan = bits_both.solve(problem, place)
    assert set(plan.devices.bits_down.tolist()) == {2}
    alone = bits.solve(place(problem.change(bits_down=2)))
    assert plan.objective <= alone.objective * (1 + 1e-12)
    assert plan.objective == pytest.approx(alone.objective, rel=1e-6)


def test_a_way_down_that_takes_nearly_nothing_gets_the_most_bits() -> None:
    problem = drawn(6, 1, tuple(range(2, 9)))
    plan = bits_both.solve(problem, partial(place, rate=1e15))
    assert set(plan.devices.bits_down.tolist()) == {8}


def test_a_representative_few_lead_many() -> None:
    count = 2500
    problem = drawn(count, 1, (3, 4, 5, 6, 8))
    plan = bits_both.solve(problem, place)
    assert plan.lower_bound == -np.inf and plan.advice
    common = min(
        optimal.solve(place(problem.change(bits=up, bits_down=down))).objective
        for up in (3, 4, 5) for down in (3, 4, 5, 6)
    )  # fmt: skip
    assert plan.objective < common
    lower = bits_both.solve(problem, place, certify=True).lower_bound
    assert 0 < plan.objective / lower - 1 < 1e-3


def test_bits_down_that_a_cap_forbids_are_not_chosen() -> None:
    problem = drawn(3, 1, (2, 8)).change(sensitivity_down=100.0)
    network = replace(problem.network, receive_power=np.array([5.0, 0.1, 0.1]))
    problem = problem.change(network=network)
    heard = [place(problem.change(bits_down=width)).received_j[0] for width in (2, 8)]
    free = bits_both.solve(problem, place)
    assert free.devices.bits_down.tolist() == [8, 8, 8]
    cap = np.array([(heard[0] + heard[1]) / 2, np.inf, np.inf])
    limited = problem.change(energy_cap=cap + np.nan_to_num(free.devices.compute_j * 0))
    pairs = BitPairs(limited, place)
    assert np.isinf(pairs.earliest[[pairs.row(2, 8), pairs.row(8, 8)], 0]).all()
    plan = bits_both.solve(limited, place)
    if plan.status is not Status.INFEASIBLE:
        assert plan.devices.bits_down.tolist()[0] == 2
    assert plan.objective == pytest.approx(exhaustive(limited)[0], rel=1e-9)


def test_floors_of_the_way_up_hold_and_the_rest_is_the_best_there_is() -> None:
    problem = drawn(3, 1, (3, 6)).change(bits_floor=[6, 1, 1])
    plan = bits_both.solve(problem, place)
    assert plan.devices.bits[0] == 6
    free = problem.change(bits_floor=1)
    best = min(
        optimal.solve(place(free.change(bits=up, bits_down=down))).objective
        for up in itertools.product((6,), (3, 6), (3, 6)) for down in itertools.product((3, 6), repeat=3)
    )  # fmt: skip
    assert plan.objective == pytest.approx(best, rel=1e-9) and plan.gap <= 1e-6


def test_no_width_holds_the_limits() -> None:
    plan = bits_both.solve(drawn(3, 1, (2, 8)).change(deadline=1e-3), place)
    assert plan.status is Status.INFEASIBLE and plan.advice
