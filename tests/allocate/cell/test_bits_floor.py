"""A hard least width for each device: every method that chooses bits keeps it, and none that does beats Algorithm Q."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from sflam.allocate.cell import baselines, bcd_bits, bits
from sflam.errors import AllocationError
from tests.allocate.cell.builders import random_problem, with_sensitivity

WIDTHS = tuple(range(2, 8))


@pytest.mark.parametrize("circuit", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_algorithm_q_equals_exhaustive_search_above_the_floor(seed, circuit) -> None:
    floor = np.random.default_rng(seed).integers(1, 8, 3)
    problem = with_sensitivity(3, seed, bit_choices=WIDTHS, bits_floor=floor)
    network = replace(problem.network, circuit_power=np.full(3, circuit))
    problem = problem.change(network=network)
    exact = bits.Search(problem)
    allowed = [[width for width in WIDTHS if width >= least] for least in floor]
    best = min(exact.solve(np.array(widths))[0] for widths in itertools.product(*allowed))
    plan = bits.solve(problem)
    assert (plan.devices.bits >= floor).all()
    assert plan.objective == pytest.approx(best, rel=1e-12)
    assert best * (1 - 2e-2) <= plan.lower_bound <= best * (1 + 1e-12)
    free = bits.solve(problem.change(bits_floor=1))
    assert free.objective <= plan.objective


@pytest.mark.parametrize("solve", [bits.solve, bcd_bits.solve, baselines.fixed_bits])
@pytest.mark.parametrize("seed", range(5))
def test_every_method_keeps_the_floor(solve, seed) -> None:
    draw = np.random.default_rng(seed)
    problem = random_problem(seed, most=6)
    floor = draw.integers(1, 9, len(problem))
    problem = problem.change(bits_floor=floor, bit_choices=(2, 3, 4, 6, 8), sensitivity=0.1)
    plan = solve(problem)
    assert (plan.devices.bits >= floor).all() and set(plan.devices.bits.tolist()) <= {2, 3, 4, 6, 8}
    if solve is baselines.fixed_bits:
        assert len(set(plan.devices.bits.tolist())) == 1


def test_a_floor_above_all_widths_is_refused() -> None:
    with pytest.raises(AllocationError, match="bits_floor 9 is above the largest of bit_choices, 8"):
        with_sensitivity(3, bit_choices=(4, 8), bits_floor=[1, 9, 2])
