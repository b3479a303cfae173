"""Epsilon against the integral that defines it, against Renyi divergence, and against itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from sflam.cost.privacy_loss import delta_of, epsilon_of, most_visits, squared_mu
from sflam.data.batches import round_batches
from sflam.privacy.settings import PrivacySettings

MUS = (0.05, 0.3, 1.0, 4.0, 12.0)


@pytest.mark.parametrize("mu", MUS)
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-8])
def test_delta_is_the_integral_of_what_one_density_is_above_the_other(mu: float, delta: float) -> None:
    epsilon = epsilon_of(mu, delta)
    edge = mu / 2 + epsilon / mu  # where p = e^epsilon q
    found, _ = quad(
        lambda x: norm.pdf(x, mu) * -math.expm1(epsilon + norm.logpdf(x) - norm.logpdf(x, mu)),
        edge,
        edge + 40,
        epsabs=0,
        points=[edge + 1],
        limit=200,
    )
    wanted = delta if epsilon else delta_of(mu, 0.0)
    assert found == pytest.approx(wanted, rel=1e-5) and wanted <= delta


@pytest.mark.parametrize("mu", MUS)
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-8])
def test_epsilon_is_just_below_what_renyi_divergence_bounds(mu: float, delta: float) -> None:
    """Alpha mu^2 / 2 of order alpha (Mironov 2017), turned to epsilon by Canonne, Kamath and Steinke 2020."""

    def bound(log_order: float) -> float:
        a = 1 + math.exp(log_order)
        return a * mu**2 / 2 + math.log1p(-1 / a) - math.log(delta * a) / (a - 1)

    renyi = minimize_scalar(bound, bounds=(-6, 12), method="bounded").fun
    epsilon = epsilon_of(mu, delta)
    assert epsilon <= max(renyi, 0) and (epsilon == 0 or epsilon > 0.75 * renyi - 0.05)


@given(st.floats(1e-3, 300), st.floats(1e-12, 0.5))
def test_epsilon_has_its_delta_and_grows(mu: float, delta: float) -> None:
    epsilon = epsilon_of(mu, delta)
    assert epsilon >= 0 and delta_of(mu, epsilon) <= delta * (1 + 1e-4)
    assert epsilon_of(mu * 1.1, delta) >= epsilon >= epsilon_of(mu, min(0.9, delta * 2))


def test_a_sampled_loss_is_as_counted() -> None:
    """Two rounds of two visits of 3 tokens at noise 2, and two updates at noise 4, in draws of the privacy loss."""
    privacy = PrivacySettings(clip=1.5, noise=2, adapters="user", clip_adapters=0.7, noise_adapters=4)
    mu2 = 2 * squared_mu(privacy, visits=2, tokens=3, legs=1, adapters=True)
    assert mu2 == pytest.approx(2 * (2 * 3 * 1 + 0.25))
    rng = np.random.default_rng(0)
    loss = np.zeros(400_000)
    for clip, deviation in [(1.5, 3.0)] * 12 + [(0.7, 2.8)] * 2:  # the worst: from -C to C in one direction
        draws = rng.normal(clip, deviation, len(loss))
        loss += norm.logpdf(draws, clip, deviation) - norm.logpdf(draws, -clip, deviation)
    epsilon = 6.0
    found = float(np.maximum(0, -np.expm1(epsilon - loss)).mean())
    assert found == pytest.approx(delta_of(math.sqrt(mu2), epsilon), rel=0.02)


def test_what_has_no_noise_counts_nothing() -> None:
    silent = PrivacySettings(clip=1.0, adapters="user", noise_adapters=0)
    assert squared_mu(silent, visits=3, tokens=3, legs=2, adapters=True) == 0 == epsilon_of(0.0, 1e-5)
    noisy = PrivacySettings(clip=1.0, noise=1.0)
    assert squared_mu(noisy, visits=1, tokens=1, legs=2, adapters=True) == 8


@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 12), st.integers(1, 3))
def test_no_sample_is_seen_more_often_than_counted(n: int, size: int, steps: int, epochs: int) -> None:
    drawn = round_batches(np.arange(n), size, seed=1, round=2, device=3, steps=steps, epochs=epochs)
    seen = np.bincount(np.concatenate(drawn), minlength=n).max()
    assert seen <= most_visits(n, size, steps, epochs)
    if steps * size >= n or not steps:
        assert seen == most_visits(n, size, steps, epochs) or steps % -(-n // size)
