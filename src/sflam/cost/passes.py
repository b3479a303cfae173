"""Rows of several devices in passes of limited size: what a server runs, and what its memory is counted by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Pass = dict[int, NDArray[np.int64]]
"""Index of a device's mini-batch -> those of its rows that are in the pass."""


def passes(counts: Sequence[int], most: Sequence[int]) -> list[Pass]:
    """Return the passes of a step, in order: a mini-batch stays whole where it fits, others are cut into even parts.

    Args:
        counts: rows of each mini-batch.
        most: of such rows alone in one pass; n of them take n / most of it.
    """
    found: list[Pass] = [{}]
    left = 1.0
    for index, (count, limit) in enumerate(zip(counts, most, strict=True)):
        parts = np.array_split(np.arange(count), -(-count // limit))
        for part in parts:
            share = len(part) / limit
            if found[-1] and share > left + 1e-9:
                found.append({})
                left = 1.0
            found[-1][index] = part
            # Parts of one mini-batch have passes of their own, all of about the same size.
            left = left - share if len(parts) == 1 else 0.0
    return found
