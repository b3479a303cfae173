"""``dirichlet``: every device its own class mix; ``quantity``: the same mix, but unequal sizes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sflam.data.partitions.contract import (
    Division,
    Labels,
    Part,
    PartitionRequest,
    expect_enough,
    parts_of,
    repair,
)
from sflam.data.partitions.lengths import classes_or_lengths
from sflam.errors import DataError

REDRAWS = 20
"""Tries for a draw that keeps the minimum without repair."""


def divide(request: PartitionRequest) -> Division:
    """Return parts skewed by class, or by length where texts have no labels."""
    by = classes_or_lengths(request)
    settings = request.settings
    parts = dirichlet(by.ids, request.devices, settings.alpha, request.rng, settings.minimum)
    return by.division(parts)


def divide_quantity(request: PartitionRequest) -> Division:
    """Return random parts of sizes q N with q ~ Dirichlet(alpha 1_K), whatever the labels.

    Source: Q. Li, Y. Diao, Q. Chen, B. He, "Federated Learning on Non-IID Data Silos: An Experimental Study",
    ICDE 2022, arXiv:2102.02079, quantity skew.
    """
    alike = np.zeros(len(request.train), dtype=np.int64)
    settings = request.settings
    return Division(dirichlet(alike, request.devices, settings.alpha, request.rng, settings.minimum))


def dirichlet(
    labels: Labels, devices: int, alpha: float, rng: np.random.Generator, minimum: int = 1
) -> list[Part]:
    """Return a partition with a skewed class mix: class c is shared out by p_c ~ Dirichlet(alpha 1_K).

    A draw that leaves a device below ``minimum`` is redrawn, ``REDRAWS`` times at most. With a small alpha or
    many devices no draw may suffice, so the last one is then repaired by moving single samples.

    Source: T.-M. H. Hsu, H. Qi, M. Brown, "Measuring the Effects of Non-Identical Data Distribution for
    Federated Visual Classification", arXiv:1909.06335, 2019, in the per-class form of M. Yurochkin et al.,
    "Bayesian Nonparametric Federated Learning of Neural Networks", ICML 2019.

    Args:
        labels: int64 [N].
        devices: K.
        alpha: concentration, positive; smaller is more skewed.
        rng: all randomness.
        minimum: fewest samples a device may hold.

    Raises:
        DataError: alpha is not positive, or K * minimum exceeds N.
    """
    expect_enough(len(labels), devices, minimum)
    if not (alpha > 0 and math.isfinite(alpha)):
        raise DataError(f"a Dirichlet partition with alpha {alpha} is impossible; alpha must be positive")
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(1 + REDRAWS):
        owners = _draw(members, len(labels), devices, alpha, rng)
        sizes = np.bincount(owners, minlength=devices)
        if sizes.min() >= minimum:
            break
    else:
        repair(owners, sizes, minimum, rng)
    return parts_of(owners, sizes)


def _draw(
    members: list[Part], samples: int, devices: int, alpha: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the owner of each sample, int64 [N], of one draw."""
    owners = np.empty(samples, dtype=np.int64)
    for indices in members:
        shares = rng.dirichlet(np.full(devices, alpha))
        if not np.isfinite(shares).all():  # an alpha near the smallest float: all mass on one device
            shares = np.eye(devices)[rng.integers(devices)]
        ends = np.rint(np.cumsum(shares) * len(indices)).astype(np.int64)
        ends[-1] = len(indices)  # the sum of the shares is 1 only up to rounding
        owners[rng.permutation(indices)] = np.repeat(np.arange(devices), np.diff(ends, prepend=0))
    return owners
