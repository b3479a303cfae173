"""The mini-batches of a device in a round, always the same for one (seed, round, device)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sflam.seeds import generator

Indices = NDArray[np.int64]

POOL = 16
"""Mini-batches sorted by length together: enough to save padding, few enough to keep their mix random."""


def batches(
    indices: Indices,
    size: int,
    rng: np.random.Generator,
    steps: int = 0,
    epochs: int = 1,
    lengths: NDArray[np.int32] | None = None,
    common: np.random.Generator | None = None,
) -> list[Indices]:
    """Return mini-batches of a device's samples, reshuffled on every pass.

    Args:
        indices: the device's samples, int64 [n].
        size: samples in a mini-batch.
        rng: the order of every pass.
        steps: exactly this many mini-batches, over as many passes as that takes; 0 makes ``epochs`` passes.
        epochs: full passes when ``steps`` is 0.
        lengths: [N] tokens of every sample of the dataset; mini-batches are then of similar length. None where
            length does not matter.
        common: draws which lengths come when, where several devices are to agree on it; ``rng`` by default.

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
        if lengths is None:
            drawn += [order[start : start + size] for start in range(0, len(order), size)]
        else:
            drawn += _buckets(order, size, lengths, common or rng)
    return drawn[:wanted]


def _buckets(
    order: Indices, size: int, lengths: NDArray[np.int32], turns: np.random.Generator
) -> list[Indices]:
    """Return one pass in mini-batches of similar length, in an order drawn from ``turns``.

    The shuffled samples are sorted by length within pools of ``POOL`` mini-batches, so that mini-batches still change
    from pass to pass. The last mini-batch holds the rest, of any lengths: with the longest, or the shortest, it would
    always hold the same samples.
    """
    full = len(order) // size * size
    found: list[Indices] = []
    for start in range(0, full, POOL * size):
        pool = order[start : min(start + POOL * size, full)]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        mine = [pool[begin : begin + size] for begin in range(0, len(pool), size)]
        # Turns are drawn for a full pool at any number of samples, so that devices with fewer samples keep step:
        # mini-batch i of n has the place of the longest-but-so-many of POOL.
        places = turns.permutation(POOL)
        found += [mine[i] for i in sorted(range(len(mine)), key=lambda i: places[i * POOL // len(mine)])]
    return found + ([order[full:]] if full < len(order) else [])


def round_batches(
    indices: Indices,
    size: int,
    *,
    seed: int,
    round: int,
    device: int,
    steps: int = 0,
    epochs: int = 1,
    lengths: NDArray[np.int32] | None = None,
) -> list[Indices]:
    """Return ``batches`` from the stream ``batches`` at (round, device): the same in every kind of fleet.

    Mini-batches of similar length take turns from the stream ``buckets`` at (round): what devices compute in one
    pass is then of similar length, too, and little is padded.
    """
    rng, common = generator(seed, "batches", round, device), generator(seed, "buckets", round)
    return batches(indices, size, rng, steps, epochs, lengths, common)


def rows_of_round(samples: int, size: int, steps: int, epochs: int) -> int:
    """Return the rows of all mini-batches of a device's round; the arguments are those of :func:`batches`."""
    if not steps:
        return samples * epochs
    full, rest = divmod(samples, size)
    sizes = [size] * full + ([rest] if rest else [])
    return sum(sizes[step % len(sizes)] for step in range(steps)) if sizes else 0
