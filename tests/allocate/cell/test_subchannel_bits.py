"""Bits and subchannels together: against every choice of both, and within bounds where those are too many."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sflam.allocate.cell import bcd_bits, bits, subchannel_bits, subchannels
from sflam.errors import AllocationError
from sflam.plan import Status
from tests.allocate.cell.builders import random_problem, with_sensitivity


@pytest.mark.parametrize("few", [200, 0])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_the_best_of_all_bits_and_counts_is_found(seed, few):
    """Every choice of widths, with the best counts for each."""
    problem = with_sensitivity(3, seed, bit_choices=(2, 4, 8))
    best = np.inf
    for widths in itertools.product((2, 4, 8), repeat=3):
        at = problem.change(bits=np.array(widths))
        plan = subchannels.solve(at, 6, tolerance=1e-5)
        best = min(best, plan.objective)
    plan = subchannel_bits.solve(problem, 6, tolerance=1e-5, few=few)
    assert plan.objective == pytest.approx(best, rel=2e-5)
    assert plan.lower_bound <= best * (1 + 1e-9)
    assert (plan.devices.subchannels >= 1).all() and plan.devices.subchannels.sum() == 6
    if few:
        assert plan.gap < 2e-5


@pytest.mark.parametrize("seed", range(4))
def test_a_search_is_within_its_bound_and_no_worse_than_the_published_one(seed):
    problem = random_problem(seed, most=8, fixed=seed % 2 == 0).change(sensitivity=0.2, bits_floor=3)
    count = 3 * len(problem)
    plan = subchannel_bits.solve(problem, count)
    band = bits.solve(problem)
    assert plan.status is not Status.INFEASIBLE and (plan.devices.bits >= 3).all()
    assert band.lower_bound * (1 - 1e-9) <= plan.lower_bound <= plan.objective
    assert plan.objective >= band.objective * (1 - 1e-3)
    for rival in (
        bcd_bits.solve(problem, subchannels=count),
        subchannels.solve(problem.change(bits=8), count),
    ):
        assert plan.objective <= rival.objective * (1 + subchannels.TOLERANCE)


def test_the_published_search_over_subchannels_hands_out_whole_ones():
    problem = with_sensitivity(5)
    plan = bcd_bits.solve(problem, subchannels=11)
    counts = plan.devices.subchannels
    assert (counts == np.rint(counts)).all() and counts.sum() == 11 and (counts >= 1).all()
    assert plan.history[-1] <= plan.history[0]
    with pytest.raises(AllocationError, match="every device needs one"):
        bcd_bits.solve(problem, subchannels=4)
