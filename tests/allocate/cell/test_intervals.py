"""Bounds over round times: below the truth, whatever windows of time choices are possible in."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.allocate.cell.intervals import Intervals
from sflam.network.network import Floats

LOW, HIGH, LAM, SPENT = 0.1, 10.0, 0.3, 0.7
TIMES = np.geomspace(LOW, HIGH, 4001)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_no_time_and_no_choice_is_below_the_bounds(seed: int) -> None:
    draw = np.random.default_rng(seed)
    shape = (3, 2)
    first = draw.uniform(0, 4, shape) * (draw.random(shape) < 0.7)
    last = np.where(draw.random(shape) < 0.5, first + draw.exponential(1.0, shape), np.inf)
    middle, bend, level = (
        draw.uniform(0, 12, shape),
        draw.exponential(1.0, shape),
        draw.exponential(3.0, shape),
    )
    added = draw.exponential(1.0, (1, *shape))

    def ask(times: Floats) -> tuple[Floats, Floats]:
        at = times[:, None, None]
        possible = (at > first) & (at < last)
        costs = np.where(possible, level + bend * (at - middle) ** 2, np.inf)
        return costs, np.where(possible, -2 * bend * (at - middle), 0.0)

    dual = Intervals(ask, LAM, SPENT, added, first)
    costs = ask(TIMES)[0] + added[0]
    choices = np.array(list(itertools.product(range(3), repeat=2)))
    whole = LAM * TIMES[:, None] + costs[:, choices, np.arange(2)].sum(axis=2) - SPENT
    true = whole.min(axis=0)
    assert dual.least(LOW, HIGH, 2.0)[0] <= true.min() + 1e-9
    assert (dual.of(choices) <= true + 1e-9).all()
    bounds = dual.alternatives()
    assert not np.isnan(bounds).any()
    for choice, device in itertools.product(range(3), range(2)):
        assert bounds[choice, device] <= true[choices[:, device] == choice].min() + 1e-9
