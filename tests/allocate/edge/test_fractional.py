"""The paper's method: fractional programming falls to the convex optimum, CCCP to whole users, splits are rounded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from sflam.allocate.edge.dual import ascend, solve
from sflam.allocate.edge.market import Groups, settle, share_bands
from sflam.allocate.edge.papers.cccp import Relaxed, associate, options_of
from sflam.allocate.edge.papers.fp import alternate
from sflam.allocate.edge.papers.fractional import relax
from sflam.allocate.edge.papers.fractional import solve as fractional
from sflam.errors import AllocationError
from sflam.plan import ALL_LOCAL, Status
from tests.allocate.cell.builders import SEEDS
from tests.allocate.edge.edges import random_edge, square


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fractional_programming_falls_to_the_convex_optimum(seed: int) -> None:
    problem, nowhere = square(8, 1, seed), np.zeros(8, int)
    *_, history = alternate(problem, nowhere)
    best = share_bands(problem, Groups(np.arange(8), nowhere, nowhere, 1)).cost.sum()
    assert (np.diff(history) <= 0).all() and len(history) - 1 <= 30
    assert history[-1] == pytest.approx(best, rel=1e-7)
    assert history[-1] >= best * (1 - 1e-12)


@settings(max_examples=6, deadline=None)
@given(SEEDS)
def test_it_falls_at_every_turn_of_random_problems(seed: int) -> None:
    problem, draw = random_edge(seed), np.random.default_rng(seed)
    chance = np.where(problem.reachable, draw.random(problem.reachable.shape), -1)
    server = chance.argmax(axis=0)
    b, _, history = alternate(problem, server)
    assert (np.diff(history) <= 1e-11 * np.abs(history[:-1])).all()
    groups = Groups(np.arange(len(problem)), server, server, problem.servers)
    assert (groups.total(b) <= problem.network.bandwidth * (1 + 1e-9)).all()
    best = share_bands(problem, groups).cost.sum()
    assert best * (1 - 1e-9) <= history[-1] <= best * 1.01


def test_association_reaches_the_best_known() -> None:
    problem = square(12, 3, layers=6, rate=4096)
    best = solve(problem)
    assert best.objective == pytest.approx(11.730389, abs=1e-6)
    for splits in ("rounded", "enumerated"):
        plan = fractional(problem, splits=splits)
        assert plan.status is not Status.INFEASIBLE
        assert plan.objective == pytest.approx(11.7304, abs=5e-5)
        assert plan.objective >= best.lower_bound and (np.diff(plan.history) < 0).all()


@pytest.mark.parametrize("seed", [1, 2])
def test_it_is_never_below_the_certified_bound(seed: int) -> None:
    problem = square(4, 2, seed, layers=6)
    bound, _, _ = ascend(problem)
    assert bound <= fractional(problem).objective * (1 + 1e-12) <= 1.05 * bound


def test_the_penalised_relaxation_falls_and_ends_whole() -> None:
    problem = square(6, 2, 1, layers=4)
    server, split, history = associate(problem, options_of(problem))
    assert (np.diff(history) <= 1e-9 * history[0]).all()
    assert ((server == ALL_LOCAL) == (split == 4)).all()
    assert settle(problem, server, split).objective == pytest.approx(history[-1], rel=1e-3)


def test_the_gradient_of_the_relaxation_is_its_slope() -> None:
    problem = square(5, 2, layers=3)
    options = options_of(problem)
    draw = np.random.default_rng(0)
    x = draw.uniform(0.2, 1, len(options.user))
    value, gradient = Relaxed(problem, options).value(x)
    towards = draw.normal(size=len(x))
    up, down = (Relaxed(problem, options).value(x + h * towards)[0] for h in (1e-5, -1e-5))
    assert gradient @ towards == pytest.approx((up - down) / 2e-5, rel=1e-4)
    assert value > 0


def test_relaxed_splits_are_as_good_as_any_near_them() -> None:
    """At a fixed association, rounding around the relaxed splits finds what trying all common splits does not beat."""
    problem = square(6, 2)
    server = problem.network.gain.argmax(axis=0)
    alpha = relax(problem, server, np.full(6, 6))
    assert ((alpha >= 1) & (alpha <= 12)).all() and np.abs(alpha - np.round(alpha)).max() > 0.01
    whole = np.clip(np.round(alpha), 1, 11).astype(int)
    found = settle(problem, server, whole).objective
    assert found <= min(settle(problem, server, np.full(6, each)).objective for each in range(1, 12))


def test_another_word_is_refused() -> None:
    with pytest.raises(AllocationError, match="did you mean 'rounded'"):
        fractional(square(2, 1), splits="round")
