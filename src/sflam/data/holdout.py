"""The held-out shares, for test and for validation, and samples of them: the same fraction of every class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sflam.errors import DataError


def stratified(
    labels: NDArray[np.int64], share: float, rng: np.random.Generator, part: str = "test"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return sorted indices of the training and of the held-out samples.

    Each class gives round(share * its size) samples, and keeps at least one for training, so that no class
    is scored without ever being seen.

    Args:
        labels: int64 [N].
        share: held-out fraction, in (0, 1).
        rng: which samples of a class are held out.
        part: what they are for: the key of ``[data]`` that gives the share.

    Raises:
        DataError: every class is too small to give a sample.
    """
    held = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held.append(members[: min(round(share * len(members)), len(members) - 1)])
    out = np.sort(np.concatenate(held)) if held else np.empty(0, dtype=np.int64)
    if not len(out):
        raise DataError(
            f"holding out {share:g} of {len(labels)} samples leaves no {part} sample in any class; "
            f"raise data.{part} or bring more samples"
        )
    return np.setdiff1d(np.arange(len(labels)), out, assume_unique=True), out


def sampled(labels: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return sorted indices of ``count`` samples, of every class its share, rounded by largest remainder.

    Args:
        labels: int64 [N], with N at least ``count``.
        count: how many.
        rng: which samples of a class, and which classes get the last ones where remainders are equal.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    shares, rest = np.divmod(count * sizes, len(labels))
    ties = rng.permutation(len(classes))
    order = ties[np.argsort(-rest[ties], kind="stable")]
    shares[order[: count - shares.sum()]] += 1
    drawn = [
        rng.permutation(np.flatnonzero(labels == label))[:share]
        for label, share in zip(classes, shares, strict=True)
    ]
    return np.sort(np.concatenate(drawn))
