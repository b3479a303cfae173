"""Path loss, fading and rate against hand-computed numbers and known means."""

from __future__ import annotations

import numpy as np
import pytest

from sflam.network.channel import (
    LEAST_FADING,
    coherent_fading,
    fading,
    gain_of_rate,
    path_gain,
    rate,
    shadowing,
)
from sflam.seeds import generator


def gain_at(*metres):
    return path_gain(np.array(metres, dtype=float), loss_db=128.1, slope_db=37.6, nearest=10.0)


def test_path_loss_is_the_formula():
    assert 10 * np.log10(gain_at(1000, 100)) == pytest.approx([-128.1, -90.5])
    assert gain_at(1.0) == gain_at(10.0)


def test_rate_is_shannon_s():
    """At an SNR of 3 over 1 MHz: 2 Mbit/s; no band, no rate; no limit beyond p g / (N0 ln 2)."""
    assert rate(np.array([1e6, 0.0]), np.array([0.3, 0.3]), np.array([1e-7, 1e-7]), 1e-14) == pytest.approx(
        [2e6, 0]
    )
    widest = rate(np.array([1e30]), np.array([0.3]), np.array([1e-7]), 1e-14)
    assert widest == pytest.approx(0.3e-7 / 1e-14 / np.log(2))


def test_a_gain_is_recovered_from_its_rate():
    gain, power = np.array([1e-12, 3e-9]), np.array([0.1, 0.2])
    found = rate(np.array(20e6), power, gain, 4e-21)
    assert gain_of_rate(found, 20e6, power, 4e-21) == pytest.approx(gain)


@pytest.mark.parametrize("kind", ["rayleigh", "rician", "none"])
def test_fading_has_mean_one_and_no_zero(kind):
    drawn = fading(np.random.default_rng(0), (2, 100_000), kind, rician_db=6.0)
    assert drawn.shape == (2, 100_000) and drawn.mean() == pytest.approx(1.0, abs=0.01)
    assert drawn.min() >= LEAST_FADING


def test_a_strong_steady_path_hardly_fades():
    spread = [
        fading(np.random.default_rng(0), (10_000,), "rician", rician_db=db).std() for db in (-40, 6, 40)
    ]
    assert spread[0] == pytest.approx(1.0, abs=0.03) and spread[2] < 0.02 < spread[1] < spread[0]


def test_shadowing_is_normal_in_db():
    drawn = 10 * np.log10(shadowing(np.random.default_rng(0), (100_000,), spread_db=8.0))
    assert drawn.mean() == pytest.approx(0, abs=0.1) and drawn.std() == pytest.approx(8, abs=0.1)


def streams(seed):
    """Return a generator for what is new in a round, as scenarios draw it."""
    return lambda number: generator(seed, "scattered", number)


@pytest.mark.parametrize("kind", ["rayleigh", "rician"])
def test_coherent_fading_has_the_same_distribution_in_every_round(kind):
    """As fading that is drawn anew: mean one, and the same share below every level."""
    anew = fading(np.random.default_rng(0), (1, 20_000), kind, rician_db=3.0)
    for number in (0, 1, 7):
        found = coherent_fading(streams(1), number, (1, 20_000), kind, coherence=0.8, rician_db=3.0)
        assert found.mean() == pytest.approx(1.0, abs=0.03)
        levels = np.quantile(anew, [0.1, 0.5, 0.9])
        assert [(found < level).mean() for level in levels] == pytest.approx([0.1, 0.5, 0.9], abs=0.015)


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_powers_are_correlated_as_rho_squared_falls(rho):
    """Of Rayleigh fading: amplitudes d rounds apart by rho^d, powers by rho^2d."""
    rounds = [coherent_fading(streams(3), n, (1, 40_000), "rayleigh", coherence=rho)[0] for n in (5, 6, 8)]
    for other, apart in ((rounds[1], 1), (rounds[2], 3)):
        assert np.corrcoef(rounds[0], other)[0, 1] == pytest.approx(rho ** (2 * apart), abs=0.03)


def test_a_round_is_drawn_alone_and_always_the_same():
    one = coherent_fading(streams(3), 9, (2, 5), "rayleigh", coherence=0.95)
    assert (one == coherent_fading(streams(3), 9, (2, 5), "rayleigh", coherence=0.95)).all()
    assert (one != coherent_fading(streams(4), 9, (2, 5), "rayleigh", coherence=0.95)).all()
