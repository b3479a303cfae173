"""What noisy sums over drawn samples give away to who sees the sums alone, and not who is in them.

In each of T steps a device draws b of its n samples, b binomial by Poisson draws and known to all, sums their
gradients, each clipped to C, and adds noise of s C. Neighbours differ in the content of one sample. Given the b - 1
others and the one u that would be drawn instead, what is seen is, with g = b / n and for either content x, x',

    P = (1 - g) N(u) + g N(x),    Q = (1 - g) N(u) + g N(x'),    |x - u|, |x' - u| <= 2 C

and N(u) lies between them: by the triangle inequality of Renyi divergences (Mironov, CSF 2017, proposition 11)

    D_a(P|Q) <= (a - 1/2) / (a - 1) D_2a(P|N(u)) + D_{2a-1}(N(u)|Q)

each at most that of the sampled Gaussian of sensitivity 2 C (Mironov, Talwar and Zhang, arXiv 1908.10530, theorem 5 and
section 3.3), in the mean over b,

    exp((a - 1) D_a) = E sum over k of (a over k) (1 - g)^(a - k) g^k exp(2 k (k - 1) / s^2)

Steps add up, and a divergence becomes (epsilon, delta) by Canonne, Kamath and Steinke, NeurIPS 2020, proposition 12.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp, xlog1py, xlogy
from scipy.stats import binom

TAIL = 1e-15
"""Chance of numbers of rows that are left out in a step, and counted as spent."""
ORDERS = (*range(2, 33), *range(34, 65, 2), *range(68, 129, 4), *range(136, 257, 8))


def epsilon_of_sums(steps: int, samples: int, rate: float, noise: float, delta: float) -> float:
    """Return an epsilon at ``delta`` of what any one sample gives away; inf where nothing is known.

    Args:
        steps: T.
        samples: n.
        rate: chance of a sample to be in a step.
        noise: s.
        delta: at which.
    """
    left = delta - steps * TAIL
    if not steps or not rate:
        return 0.0
    if left <= 0 or not noise:
        return math.inf
    orders = np.array(ORDERS, float)
    spent = steps * divergences(samples, rate, noise) + np.log1p(-1 / orders)
    return max(0.0, float((spent - np.log(left * orders) / (orders - 1)).min()))


@cache
def divergences(samples: int, rate: float, noise: float) -> NDArray[np.float64]:
    """Return the Renyi divergence of a step at each of ``ORDERS``; see :func:`epsilon_of_sums`."""
    first, last = binom.interval(1 - TAIL, samples, rate)
    rows = np.arange(int(first), int(last) + 1)
    chances, part = binom.logpmf(rows, samples, rate), rows / samples
    return np.array(
        [
            (a - 0.5) / (a - 1) * _one_way(2 * a, part, chances, noise)
            + _one_way(2 * a - 1, part, chances, noise)
            for a in ORDERS
        ]
    )


def _one_way(order: int, part: NDArray[np.float64], chances: NDArray[np.float64], noise: float) -> float:
    """Return the divergence of a step from the one that has another sample in place, at a whole ``order`` of 2 or more.

    Args:
        order: a.
        part: g of each number of rows.
        chances: its log chance.
        noise: s.
    """
    k = np.arange(order + 1)[:, None]
    ways = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
    each = ways + xlog1py(order - k, -part) + xlogy(k, part) + 2 * k * (k - 1) / noise**2
    return float(logsumexp(each + chances)) / (order - 1)
