"""Epsilon of sums over drawn samples: against integrals of the worst pairs, and against what else is promised."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import binom, norm

from sflam.cost.privacy_loss import epsilon_of, epsilon_of_coins, squared_mu
from sflam.cost.sampled_sums import ORDERS, divergences, epsilon_of_sums
from sflam.privacy.settings import PrivacySettings


def mixed(x: float, part: float, far: float, noise: float) -> float:
    return (1 - part) * norm.pdf(x, 0, noise) + part * norm.pdf(x, far, noise)


@pytest.mark.parametrize(("samples", "rate", "noise"), [(40, 0.1, 2.0), (12, 0.5, 4.0), (300, 0.02, 1.5)])
def test_the_divergence_is_the_integral_over_all_numbers_of_rows(samples, rate, noise) -> None:
    """One way: E over b of the integral of (mix / base)^a base, in units of the clip, with the sample 2 clips away."""
    found = divergences(samples, rate, noise)[ORDERS.index(2)]

    def integrand(x: float, part: float, order: int) -> float:
        near, far = norm.logpdf(x, 0, noise), norm.logpdf(x, 2, noise)
        with np.errstate(divide="ignore"):
            both = np.logaddexp(np.log1p(-part) + near, np.log(part) + far)
        return math.exp(order * both - (order - 1) * near)

    def one_way(order: int) -> float:
        total = 0.0
        for rows in range(samples + 1):
            chance, part = binom.pmf(rows, samples, rate), rows / samples
            if chance > 1e-13:
                inside, _ = quad(
                    integrand, -12 * noise, 12 * noise + 8 * order, args=(part, order), limit=300
                )
                total += chance * inside
        return math.log(total) / (order - 1)

    assert found == pytest.approx(1.5 * one_way(4) + one_way(3), rel=1e-5)


@pytest.mark.parametrize(("far", "other"), [(2.0, 0.0), (0.0, 2.0), (1.0, -1.0), (2.0, 1.0)])
@pytest.mark.parametrize(("part", "noise"), [(0.1, 1.0), (0.3, 2.0), (1.0, 3.0)])
def test_no_pair_of_contents_spends_more_than_is_counted(part, noise, far, other) -> None:
    """One step of about a known number of rows, of 1000 samples: the integral of one density above the other."""
    delta = 1e-4
    epsilon = epsilon_of_sums(1, 1000, part, noise, delta)
    found, _ = quad(
        lambda x: max(0.0, mixed(x, part, far, noise) - math.exp(epsilon) * mixed(x, part, other, noise)),
        -14 * noise,
        14 * noise + 2,
        limit=500,
    )
    assert found <= delta


def test_many_steps_are_below_draws_of_the_privacy_loss() -> None:
    steps, part, noise, epsilon_at = 50, 0.1, 2.0, 1e-2
    rng = np.random.default_rng(0)
    drawn = rng.random((100_000, steps)) < part
    x = rng.normal(np.where(drawn, 1.0, 0.0), noise)

    def log_density(far: float) -> np.ndarray:
        return np.log(
            (1 - part) * np.exp(-(x**2) / 2 / noise**2) + part * np.exp(-((x - far) ** 2) / 2 / noise**2)
        )

    loss = (log_density(1.0) - log_density(-1.0)).sum(1)
    epsilon = epsilon_of_sums(steps, 1000, part, noise, epsilon_at)
    assert float(np.maximum(0, -np.expm1(epsilon - loss)).mean()) <= epsilon_at


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 300), st.integers(20, 400), st.floats(1.0, 60.0), st.sampled_from([1e-3, 1e-5]))
def test_more_noise_fewer_steps_and_smaller_rates_spend_less(steps, samples, noise, delta) -> None:
    rate = 8 / samples
    epsilon = epsilon_of_sums(steps, samples, rate, noise, delta)
    assert epsilon >= epsilon_of_sums(steps, samples, rate, noise * 1.5, delta)
    assert epsilon_of_sums(steps + 10, samples, rate, noise, delta) >= epsilon
    assert epsilon_of_sums(steps, samples * 2, rate / 2, noise, delta) <= epsilon * (1 + 1e-9)


def test_hidden_coins_spend_less_than_coins_that_show_where_few_samples_come() -> None:
    steps, samples, batch, noise = 500, 2000, 10, 3.0
    hidden = epsilon_of_sums(steps, samples, batch / samples, noise, 1e-5)
    seen = epsilon_of_coins(steps, batch / samples, (2 / noise) ** 2, 0.0, 1e-5)
    assert 0 < hidden < seen / 3 < epsilon_of(math.sqrt(steps) * 2 / noise, 1e-5)
    assert epsilon_of_sums(0, samples, 0.1, noise, 1e-5) == 0 == epsilon_of_sums(3, samples, 0.0, noise, 1e-5)
    assert epsilon_of_sums(3, samples, 0.1, 0.0, 1e-5) == math.inf


def test_a_visit_of_a_noisy_sum_adds_to_those_of_tokens_and_noise_on_adapters_adds_nothing() -> None:
    """2 visits of 3 tokens at noise 2, and of one sum at noise 4: 2 (3 (2 / 2)^2 + (2 / 4)^2)."""
    both = PrivacySettings(clip=1, noise=2, sample_clip=1, sample_noise=4, adapters="user")
    assert squared_mu(both, visits=2, tokens=3, legs=1, adapters=True) == pytest.approx(2 * (3 + 0.25))
    assert squared_mu(both, visits=2, tokens=3, legs=1, adapters=False) == pytest.approx(6)
    alone = PrivacySettings(sample_clip=1, sample_noise=4)
    assert squared_mu(alone, visits=2, tokens=3, legs=1, adapters=True) == pytest.approx(0.5)
