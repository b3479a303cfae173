"""The held-out share: the same fraction of every class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sflam.errors import DataError


def stratified(
    labels: NDArray[np.int64], share: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return sorted indices of the training and of the held-out samples.

    Each class gives round(share * its size) samples, and keeps at least one for training, so that no class
    is tested without ever being seen.

    Args:
        labels: int64 [N].
        share: held-out fraction, in (0, 1).
        rng: which samples of a class are held out.

    Raises:
        DataError: every class is too small to give a sample.
    """
    held = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held.append(members[: min(round(share * len(members)), len(members) - 1)])
    test = np.sort(np.concatenate(held)) if held else np.empty(0, dtype=np.int64)
    if not len(test):
        raise DataError(
            f"holding out {share:g} of {len(labels)} samples leaves no test sample in any class; "
            "raise data.test or bring more samples"
        )
    return np.setdiff1d(np.arange(len(labels)), test, assume_unique=True), test
