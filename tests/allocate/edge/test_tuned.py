"""Tuned layers chosen beside servers and splits: the best of all choices, above a bound, and moved by the weights."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.shares import EdgeShares
from sflam.allocate.edge.statement import edge_problem
from sflam.allocate.referee import score
from sflam.allocate.registry import allocate
from sflam.cost.reference import workloads_of
from sflam.errors import AllocationError
from sflam.network.reference import ref_b

LAYERS = 4
FIT = (2.0, 1.2, 0.9, 0.8)


def problem_of(seed: int = 0, users: int = 3, **more: object) -> EdgeProblem:
    edge = ref_b(users=users, servers=2, seed=seed)
    every = [workloads_of(edge, LAYERS, tuned=tau) for tau in range(1, LAYERS + 1)]
    wishes = {"fit": FIT, "fit_weight": 0.2, "stability_weight": 60.0} | more
    return edge_problem(
        edge.network,
        workloads_of(edge, LAYERS),
        edge.samples,
        at_tuned=every,
        **wishes,  # type: ignore[arg-type]
    )


def everything(problem: EdgeProblem) -> float:
    """Return the least objective of all numbers of tuned layers, servers and splits."""
    numbers = itertools.product(range(1, LAYERS + 1), repeat=len(problem))
    return min(allocate(problem.at(np.array(tau)), "exhaustive").objective for tau in numbers)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_is_the_best_of_all_choices(seed: int) -> None:
    problem = problem_of(seed)
    plan, best = allocate(problem, "dual"), everything(problem)
    assert plan.objective == pytest.approx(best, rel=1e-9)
    assert plan.lower_bound <= best * (1 + 1e-12) and plan.gap < 0.02
    given = problem.at(plan.devices.tuned)
    assert score(given, EdgeShares.from_plan(plan.devices)).objective == pytest.approx(plan.objective)


def test_all_layers_tuned_are_the_problem_without_a_choice() -> None:
    problem = problem_of(fit=(), fit_weight=0.0, stability_weight=0.0)
    whole = problem.at(np.full(3, LAYERS))
    edge = ref_b(users=3, servers=2, seed=0)
    plain = edge_problem(edge.network, workloads_of(edge, LAYERS), edge.samples, stability_weight=0.0)
    assert allocate(whole).objective == allocate(plain).objective
    np.testing.assert_array_equal(whole.layer_flops, plain.layer_flops)
    less = problem.at(np.full(3, 1))
    assert (less.layer_flops < plain.layer_flops).all() and (less.memory <= plain.memory).all()


def test_instability_counts_what_is_tuned_at_every_split() -> None:
    problem = problem_of()
    given = problem.at(np.array([1, 2, 4]))
    published = problem.change(choices=None).instability
    for user, tau in enumerate((1, 2, 4)):
        np.testing.assert_array_equal(given.instability[user], np.full(LAYERS + 1, published[user, tau]))
    np.testing.assert_allclose(given.misfit, [2.0, 1.2, 0.8])


@pytest.mark.parametrize("method", ["dual", "nearest", "fractional", "all-local"])
def test_a_weight_moves_what_is_tuned(method: str) -> None:
    tuned, shaky = [], []
    for weight in (0.0, 30.0, 300.0, 3000.0):
        problem = problem_of(users=6, stability_weight=weight, eigenvalue=0.1)
        plan = allocate(problem, method)
        tuned.append(plan.devices.tuned.sum())
        shaky.append(problem.at(plan.devices.tuned).instability[:, 0].sum())
    assert tuned[0] == 6 * LAYERS and tuned[-1] == 6 and tuned == sorted(tuned, reverse=True)
    assert shaky == sorted(shaky, reverse=True) and shaky[0] > 1.5 * shaky[-1]


def test_without_a_loss_the_fewest_are_tuned() -> None:
    for least in (1, 2):
        plan = allocate(problem_of(fit=(), fit_weight=0.0, least_tuned=least))
        assert set(plan.devices.tuned.tolist()) == {least}


def test_losses_of_another_model_are_refused() -> None:
    with pytest.raises(AllocationError, match=r"fit has 2 losses; give one for 1, 2, \.\.\. 4 tuned layers"):
        problem_of(fit=(1.0, 0.5))
