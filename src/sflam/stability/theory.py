"""How much a tuned model depends on a single sample (section 5): bounds, and how they compare with the measurement.

Average-replace-one stability of a training algorithm A on a sample S of size n,

    AS = E |l(A(S^i), z_i) - l(A(S), z_i)|,   S^i = S with z_i replaced by an independent draw                  (5.1)

in units of the loss. The loss is rho-Lipschitz in the parameters (loss per unit of parameter); Lambda_min is the least
eigenvalue of the empirical risk's Hessian, c and gamma weigh squared distances (all three: loss per squared unit).
What is measured, rho and Lambda_min among it, is an input.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def soft_bound(
    tuned: ArrayLike,
    samples: ArrayLike,
    *,
    lipschitz: ArrayLike = 1.0,
    eigenvalue: ArrayLike = 0.0,
    penalty: float = 0.5,
) -> Floats:
    """Return 2 rho^2 / (n (Lambda_min + 2 c (1 - p))), in units of the loss (5.2); inf where that divides by 0.

    Tuning a fraction p of the weights is modelled as a penalty c (1 - p) |theta - theta_0|^2. c = 1 is Fu et al.'s;
    Lambda_min = 0 and c = 1/2, the defaults, are arXiv 2409.20247's with p = alpha / Y.

    Args:
        tuned: p in [0, 1].
        samples: n.
        lipschitz: rho.
        eigenvalue: Lambda_min.
        penalty: c.
    """
    convexity = np.asarray(eigenvalue, float) + 2 * penalty * (1 - np.asarray(tuned, float))
    return _ratio(2 * np.asarray(lipschitz, float) ** 2, np.asarray(samples, float) * convexity)


def hard_bound(
    tuned: ArrayLike,
    samples: ArrayLike,
    *,
    lipschitz: ArrayLike = 1.0,
    eigenvalue: ArrayLike = 0.0,
    decay: float = 0.0,
) -> Floats:
    """Return 2 p rho^2 / (n (Lambda_min + gamma)), in units of the loss (5.3); inf where that divides by 0.

    Only a random fraction p of the weights is trained, with weight decay (gamma / 2) |theta|^2. It is linear in p where
    rho_M^2 = p rho^2 and the Hessian's least eigenvalue on the trained block is the whole one's.

    Args:
        tuned: p in [0, 1].
        samples: n.
        lipschitz: rho of all weights; of the trained ones, give it divided by the root of p.
        eigenvalue: Lambda_min of the Hessian on the trained block.
        decay: gamma.
    """
    rho_squared = np.asarray(tuned, float) * np.asarray(lipschitz, float) ** 2
    return _ratio(2 * rho_squared, np.asarray(samples, float) * (np.asarray(eigenvalue, float) + decay))


def calibrated_penalty(
    measured: float, tuned: float, samples: float, *, lipschitz: float = 1.0, eigenvalue: float = 0.0
) -> float:
    """Return the c with which (5.2) equals what was measured at one p; 0 where even c = 0 is below it.

    c is a constant of the model, no property of a mask: it is fitted at one p and then judged at others.

    Args:
        measured: AS at that p, positive.
        tuned: p, below 1: at 1 the bound does not hold c.
        samples: n.
        lipschitz: rho.
        eigenvalue: Lambda_min.
    """
    assert measured > 0 and 0 <= tuned < 1, (measured, tuned)
    convexity = 2 * lipschitz**2 / (samples * measured)
    return max(0.0, (convexity - eigenvalue) / (2 * (1 - tuned)))


@dataclass(frozen=True, kw_only=True, eq=False)
class BoundComparison:
    """A bound beside what was measured, over several p.

    Attributes:
        ratio: [P] bound over measured; at least 1 where the bound holds.
        rank: Spearman's correlation of the two over p, from -1 to 1; nan where either does not vary.
        holds: whether no measured value exceeds its bound.
        increasing: whether the measured values do not fall with p.
    """

    ratio: Floats
    rank: float
    holds: bool
    increasing: bool


def compare(tuned: ArrayLike, measured: ArrayLike, bound: ArrayLike) -> BoundComparison:
    """Return how a bound [P] stands to measured values [P] over p [P], in any order."""
    p, found, above = (np.asarray(each, float) for each in (tuned, measured, bound))
    order = np.argsort(p, kind="stable")
    return BoundComparison(
        ratio=_ratio(above, found),
        rank=rank_correlation(found, above),
        holds=bool((found <= above).all()),
        increasing=bool((np.diff(found[order]) >= 0).all()),
    )


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Return Spearman's rank correlation, ties sharing their mean rank; nan where one of the two does not vary."""
    ranks = [_ranks(np.asarray(each, float)) for each in (first, second)]
    a, b = (each - each.mean() for each in ranks)
    spread = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / spread if spread > 0 else float("nan")


def average_stability(original: ArrayLike, replaced: ArrayLike) -> tuple[float, float]:
    """Return the measured AS (5.1) and its standard error over draws of S, in units of the loss.

    Args:
        original: [draws, R] l(A(S), z_i) of the R samples that are replaced one at a time.
        replaced: [draws, R] l(A(S^i), z_i), trained with the same seed, start, batch order and noise.
    """
    gaps = np.abs(np.asarray(replaced, float) - np.asarray(original, float)).mean(axis=1)
    error = float(gaps.std(ddof=1) / np.sqrt(len(gaps))) if len(gaps) > 1 else float("nan")
    return float(gaps.mean()), error


def _ranks(values: Floats) -> Floats:
    _, which, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[which]


def _ratio(above: Floats, below: Floats) -> Floats:
    """Return above / below; inf where below is not positive."""
    above, below = np.broadcast_arrays(above, below)
    positive = below > 0
    return np.where(positive, above / np.where(positive, below, 1.0), np.inf)
