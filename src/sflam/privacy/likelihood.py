"""Was this sample trained on? The loss of the run's model, against those of runs that never saw the sample.

The offline likelihood-ratio attack: a sample's confidence p, as phi = log(p / (1 - p)), is near a normal distribution
over models trained without it; the farther above their mean the model asked is, the more it is a member. A hard sample
with a middling loss then tells more than an easy one with a small loss. With few shadow runs one deviation is taken
over all samples. Source: Carlini et al., Membership inference attacks from first principles, S&P 2022, section V.

S shadow runs, N samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST = 4
"""Fewest shadow runs: half of them go without a given sample, and a deviation needs two."""
_FLOOR = 1e-12


def confidence(losses: ArrayLike) -> NDArray[np.float64]:
    """Return phi of cross-entropies: with p = exp(-loss), log(p / (1 - p)) = -log(exp(loss) - 1)."""
    loss = np.maximum(np.asarray(losses, float), _FLOOR)
    found: NDArray[np.float64] = -(loss + np.log(-np.expm1(-loss)))
    return found


def likelihood(own: ArrayLike, shadows: ArrayLike, out: ArrayLike) -> NDArray[np.float64]:
    """Return [N] scores, lower for members: minus the deviations by which phi is above that of runs without the sample.

    Args:
        own: [N] losses of the model asked.
        shadows: [S, N] losses of shadow runs.
        out: [S, N] whether a run went without the sample; at least once each.
    """
    without = np.asarray(out, bool)
    phi = np.where(without, confidence(shadows), 0.0)
    counts = without.sum(0)
    mean = phi.sum(0) / counts
    rest = np.where(without, phi - mean, 0.0)
    deviation = np.sqrt((rest**2).sum() / max(1, (counts - 1).sum()))
    found: NDArray[np.float64] = -(confidence(own) - mean) / max(float(deviation), _FLOOR)
    return found
