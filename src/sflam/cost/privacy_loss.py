"""What a device has given away of one sample, as epsilon at a delta: Gaussian noise, counted exactly.

A release with sensitivity s and noise of standard deviation t is s / t-Gaussian differentially private, releases that
may depend on those before them compose to the root of the sum of squares, and mu-GDP is (epsilon, delta)-DP where

    delta = Phi(mu / 2 - epsilon / mu) - e^epsilon Phi(-mu / 2 - epsilon / mu)

(Dong, Roth and Su, Gaussian differential privacy, J. R. Stat. Soc. B 2022, theorem 2.7, corollaries 2.13 and 3.3; the
formula is also theorem 8 of Balle and Wang, ICML 2018). Neighbours differ in the content of one sample, another in its
place, so a vector clipped to C has sensitivity 2 C, and the n tokens of a sample together 2 C sqrt(n).

Passes gain nothing by sampling: how often a sample goes up is certain. With Poisson draws that is a binomial number V
of the T steps so far, and

    delta = sum over v of P[V = v] delta of sqrt(v mu_1^2 + mu_0^2)

with mu_1 of one visit and mu_0 of what is certain: the chance of what is seen in the mean over the coins, seen or
unseen. That of noisy sums of a Poisson sample (Abadi et al., CCS 2016) would be less, and does not hold here: rows go
up one by one, so who knows the other samples sees whether this one came. To who sees nothing but sums it does, see
:mod:`sflam.cost.sampled_sums`.

A loss between 0 and C moves a sum of losses by C at most, so a sum with noise z C spends 1 / z^2 in each visit.

DP-SGD on the device gives one more vector in each visit, the sum that the sample is in. All that the device has trained
follows from these sums, so noise on the adapters themselves then spends nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr
from scipy.stats import binom

from sflam.privacy.settings import USER, PrivacySettings

MOST = 1e9
"""No epsilon is looked for beyond."""
TAIL = 1e-15
"""Chance of numbers of visits that are left out, and counted as spent."""


def squared_mu(
    privacy: PrivacySettings,
    *,
    visits: int,
    tokens: int,
    legs: int,
    adapters: bool,
    losses: bool = False,
    selected: bool = True,
) -> float:
    """Return mu^2 of what a round gives away of any one sample of a device.

    Args:
        privacy: clips and noises.
        visits: most mini-batches of the round a sample can be in, each of which sends it anew.
        tokens: most tokens of a sample.
        legs: noisy messages with a token that a step sends: activations, and with labels at home their gradient.
        adapters: whether the device trains something, and sends it.
        losses: whether it reports the mean loss of its samples.
        selected: whether it takes part.
    """
    found = 0.0
    if privacy.noise and selected:
        found += visits * legs * tokens * (2 / privacy.noise) ** 2
    if privacy.noise_loss and losses and selected:
        found += visits / privacy.noise_loss**2
    if privacy.sample_noise and adapters and selected:
        found += visits * (2 / privacy.sample_noise) ** 2
    elif privacy.adapters == USER and privacy.noise_adapters and adapters and selected:
        found += (2 / privacy.noise_adapters) ** 2
    return found


def delta_of(mu: float, epsilon: float) -> float:
    """Return the least delta at which mu-GDP is (epsilon, delta)-DP."""
    near, far = log_ndtr(mu / 2 - epsilon / mu), log_ndtr(-mu / 2 - epsilon / mu)
    return max(0.0, math.exp(near) - math.exp(min(0.0, epsilon + far)))


def epsilon_of(mu: float, delta: float) -> float:
    """Return the least epsilon at which mu-GDP is (epsilon, delta)-DP; inf beyond ``MOST``."""
    return 0.0 if mu <= 0 else _least(lambda epsilon: delta_of(mu, epsilon), delta)


def _least(spent: Callable[[float], float], delta: float) -> float:
    """Return the least epsilon at which no more than ``delta`` is ``spent``; inf beyond ``MOST``."""
    if spent(0.0) <= delta:
        return 0.0
    top = 1.0
    while spent(top) > delta:
        top *= 2
        if top > MOST:
            return math.inf
    return float(brentq(lambda epsilon: spent(epsilon) - delta, 0.0, top, xtol=1e-9, rtol=1e-12))


def delta_of_coins(steps: int, rate: float, visit: float, certain: float, epsilon: float) -> float:
    """Return the least delta where a sample goes up in each step by a coin.

    Args:
        steps: T, coins thrown.
        rate: the chance of each.
        visit: mu_1^2.
        certain: mu_0^2, of what is given away whatever the coins show.
        epsilon: at which.
    """
    first, last = binom.interval(1 - TAIL, steps, rate) if steps else (0, 0)
    visits = np.arange(int(first), int(last) + 1)
    chances = binom.pmf(visits, steps, rate)
    mu = np.sqrt(visits * visit + certain)
    spent = [delta_of(float(each), epsilon) if each else 0.0 for each in mu]
    return float(chances @ np.array(spent)) + (TAIL if steps else 0.0)


def epsilon_of_coins(steps: int, rate: float, visit: float, certain: float, delta: float) -> float:
    """Return the least epsilon at ``delta``; the other arguments are those of :func:`delta_of_coins`."""
    return _least(lambda epsilon: delta_of_coins(steps, rate, visit, certain, epsilon), delta)


def most_visits(samples: int, batch: int, steps: int, epochs: int) -> int:
    """Return the most mini-batches of a round that one of ``samples`` can be in; see ``data.batches``.

    Args:
        samples: that the mini-batches are drawn from.
        batch: rows of a mini-batch.
        steps: of the round; 0 for whole passes.
        epochs: passes, where ``steps`` is 0.
    """
    return -(-steps // max(1, -(-samples // batch))) if steps else epochs
