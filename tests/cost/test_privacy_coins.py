"""Epsilon of visits by coins: against integrals, against draws, and against what sums of a sample would promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from sflam.cost.privacy_loss import delta_of, delta_of_coins, epsilon_of, epsilon_of_coins


@pytest.mark.parametrize(("rate", "mu", "epsilon"), [(0.1, 1.0, 0.5), (0.5, 2.0, 1.0), (0.02, 0.5, 0.0)])
def test_one_step_is_the_integral_over_who_sees_the_coin(rate: float, mu: float, epsilon: float) -> None:
    """The view is the coin and, where it shows the sample, its noisy row: densities q N(mu) and q N(0) of rows."""

    def beyond(x: float) -> float:
        return max(0.0, rate * norm.pdf(x, mu) - math.exp(epsilon) * rate * norm.pdf(x))

    found, _ = quad(beyond, -20, 25, points=[mu / 2 + epsilon / mu], limit=400)
    assert delta_of_coins(1, rate, mu**2, 0.0, epsilon) == pytest.approx(found, rel=1e-6)


def test_many_steps_are_as_draws_of_the_privacy_loss() -> None:
    steps, rate, visit, certain, epsilon = 30, 0.2, 0.4, 0.3, 1.5
    rng = np.random.default_rng(0)
    coins = rng.random((400_000, steps)) < rate
    mu2 = coins.sum(1) * visit + certain
    loss = rng.normal(mu2 / 2, np.sqrt(mu2))
    found = float(np.maximum(0, -np.expm1(epsilon - loss)).mean())
    assert delta_of_coins(steps, rate, visit, certain, epsilon) == pytest.approx(found, rel=0.02)


def test_the_bound_for_sums_of_a_poisson_sample_would_promise_too_much() -> None:
    """Rows that go up one by one are not their sum: who knows the others sees the coin, and then has the row."""
    rate, mu, epsilon = 0.1, 3.0, 1.0

    def of_sum(
        x: float,
    ) -> float:  # a sum is q N(mu) + (1 - q) N(0), and q N(-mu) + (1 - q) N(0) of the other sample
        one = rate * norm.pdf(x, mu / 2) + (1 - rate) * norm.pdf(x)
        other = rate * norm.pdf(x, -mu / 2) + (1 - rate) * norm.pdf(x)
        return max(0.0, one - math.exp(epsilon) * other)

    promised, _ = quad(of_sum, -20, 20, limit=400)
    seen = rate * (
        norm.sf(-mu / 2) - math.exp(epsilon) * norm.sf(mu / 2)
    )  # the coin, and a row above the middle
    assert delta_of_coins(1, rate, mu**2, 0.0, epsilon) > promised
    assert seen > 1.5 * promised  # a plain threshold already tells more than that


@settings(max_examples=30)
@given(
    st.integers(0, 200),
    st.floats(0.001, 1),
    st.floats(1e-3, 4),
    st.floats(0, 4),
    st.sampled_from([1e-3, 1e-5, 1e-8]),
)
def test_coins_spend_no_more_than_visits_that_are_certain(steps, rate, visit, certain, delta) -> None:
    epsilon = epsilon_of_coins(steps, rate, visit, certain, delta)
    assert epsilon <= epsilon_of(math.sqrt(steps * visit + certain), delta) * (1 + 1e-6) + 1e-6
    assert epsilon >= epsilon_of(math.sqrt(certain), delta) * (1 - 1e-6) - 1e-6
    assert delta_of_coins(steps, rate, visit, certain, epsilon) <= delta * (1 + 1e-4)


def test_coins_that_always_show_the_sample_are_visits() -> None:
    assert epsilon_of_coins(7, 1.0, 0.5, 0.2, 1e-5) == pytest.approx(
        epsilon_of(math.sqrt(3.7), 1e-5), rel=1e-6
    )
    assert epsilon_of_coins(0, 0.3, 0.5, 0.0, 1e-5) == 0
    assert delta_of_coins(1, 1.0, 4.0, 0.0, 1.0) == pytest.approx(delta_of(2.0, 1.0))
