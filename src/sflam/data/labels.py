"""Labels of any source as numbers from 0, with the names of their classes. N samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.errors import DataError

Numbered = tuple[NDArray[np.int64], tuple[str, ...]]


def numbered(
    where: object, column: str, labels: NDArray[Any], count: int, *, every: bool, names: Sequence[str] = ()
) -> Numbered:
    """Return labels as int64 [N] and the names of their classes.

    Args:
        where: what to name in errors: a file, or a dataset.
        column: the column of the labels, named in errors.
        labels: [N] integers from 0, or class names.
        count: N, the number of inputs.
        every: whether numbers name all classes up to the largest; otherwise the classes are those that occur.
        names: the names that the source declares for the numbers.

    Raises:
        DataError: another shape or type, a negative label, or one beyond the declared names or the samples.
    """
    if labels.shape != (count,):
        raise DataError(
            f"{where}: {column!r} has shape {labels.shape} for {count} inputs; one label per input: ({count},)"
        )
    if labels.dtype.kind not in "biuU":
        raise DataError(
            f"{where}: {column!r} holds {labels.dtype}; labels are integers from 0, or class names"
        )
    if labels.dtype.kind == "U" or not (every or names):
        occurring = labels if labels.dtype.kind == "U" else labels.astype(np.int64)  # True is class "1"
        found, codes = np.unique(occurring, return_inverse=True)
        return codes.astype(np.int64), tuple(str(name) for name in found)
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        raise DataError(f"{where}: {column!r} holds the label {low}; labels are integers from 0")
    if names:
        if high >= len(names):
            raise DataError(
                f"{where}: {column!r} holds the label {high}, but names only {len(names)} classes"
            )
        return labels.astype(np.int64), tuple(names)
    if high >= count:
        # Every label up to the largest gets an output of the head, so a stray one would cost gigabytes.
        raise DataError(
            f"{where}: {column!r} holds the label {high} in {count} samples; number the classes 0, 1, 2, ..."
        )
    return labels.astype(np.int64), tuple(str(label) for label in range(high + 1))
