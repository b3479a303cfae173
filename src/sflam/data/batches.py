"""The mini-batches of a device in a round, always the same for one (seed, round, device)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sflam.seeds import generator

Indices = NDArray[np.int64]


def epoch_order(count: int, seed: int, *position: int) -> Indices:
    """Return a permutation of 0..count - 1 for one pass, from the stream ``batches`` at ``position``."""
    return generator(seed, "batches", *position).permutation(count)


def batches(
    indices: Indices, size: int, rng: np.random.Generator, steps: int = 0, epochs: int = 1
) -> list[Indices]:
    """Return mini-batches of a device's samples, reshuffled on every pass.

    Args:
        indices: the device's samples, int64 [n].
        size: samples in a mini-batch.
        rng: the order of every pass.
        steps: exactly this many mini-batches, over as many passes as that takes; 0 makes ``epochs`` passes.
        epochs: full passes when ``steps`` is 0.

    Returns:
        int64 arrays of at most ``size`` indices. The last batch of a pass holds what is left over: no sample
        is skipped, and none comes twice in a pass. A device without samples has no mini-batches.
    """
    assert size >= 1 and steps >= 0 and epochs >= 1, (size, steps, epochs)
    if not len(indices):
        return []
    per_pass = -(-len(indices) // size)
    wanted = steps or epochs * per_pass
    drawn: list[Indices] = []
    while len(drawn) < wanted:
        order = rng.permutation(indices)
        drawn += [order[start : start + size] for start in range(0, len(order), size)]
    return drawn[:wanted]


def round_batches(
    indices: Indices, size: int, *, seed: int, round: int, device: int, steps: int = 0, epochs: int = 1
) -> list[Indices]:
    """Return ``batches`` from the stream ``batches`` at (round, device): the same in every kind of fleet."""
    return batches(indices, size, generator(seed, "batches", round, device), steps, epochs)
