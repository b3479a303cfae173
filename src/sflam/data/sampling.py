"""``data.sampling = "global"``: a step of the fleet is a uniform sample, without replacement, of all its samples.

The size of a step is fixed; each device's share of it is drawn from the numbers of samples alone, as counts in a
uniform sample are: multivariate hypergeometric. A share may be zero. Source: GPSL, arXiv 2407.15738.

K devices, n_k samples of device k.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sflam.data.batches import Indices
from sflam.data.poisson import most_drawn
from sflam.data.settings import POISSON
from sflam.seeds import generator

Shares = NDArray[np.int64]


def shares(
    counts: Sequence[int], size: int, rng: np.random.Generator, steps: int = 0, epochs: int = 1
) -> Shares:
    """Return [steps, K], the rows of each device in each step.

    Args:
        counts: [K] samples of each device.
        size: rows of a step; the last one of every pass has what is left over.
        rng: all randomness.
        steps: exactly this many, over as many passes as that takes; 0 makes ``epochs`` passes.
        epochs: full passes when ``steps`` is 0.
    """
    total = sum(counts)
    assert total and size >= 1, (counts, size)
    wanted = steps or epochs * -(-total // size)
    drawn: list[Shares] = []
    left = np.zeros(len(counts), dtype=np.int64)
    while len(drawn) < wanted:
        if not left.any():
            left = np.array(counts, dtype=np.int64)
        drawn.append(rng.multivariate_hypergeometric(left, min(size, int(left.sum())), method="marginals"))
        left = left - drawn[-1]
    return np.array(drawn)


def round_shares(
    counts: Mapping[int, int], size: int, *, seed: int, round: int, steps: int = 0, epochs: int = 1
) -> dict[int, Indices]:
    """Return device -> its shares [steps] of a round, from the stream ``shares`` at (round); see :func:`shares`."""
    found = shares(list(counts.values()), size, generator(seed, "shares", round), steps, epochs)
    return dict(zip(counts, found.T, strict=True))


def most_rows(samples: Sequence[int], batch: int, selected: int, sampling: str) -> int:
    """Return the most rows a device can have in a step: a mini-batch, or more where its rows are drawn.

    Args:
        samples: [K] of each device.
        batch: rows of a mini-batch.
        selected: devices of a round; 0 for all.
        sampling: ``data.sampling``.
    """
    if sampling == POISSON:
        return min(most_drawn(batch), max(samples))
    return min(batch * (selected or len(samples)), max(samples)) if sampling == "global" else batch


def batches_of_shares(indices: Indices, own: Indices, *, seed: int, round: int, device: int) -> list[Indices]:
    """Return a device's mini-batches of the sizes ``own`` [steps], some perhaps empty, reshuffled on every pass.

    Args:
        indices: its samples, int64 [n_k].
        own: its shares.
        seed: of the run.
        round: with ``device``, the place in the stream ``batches``.
        device: its index.
    """
    rng = generator(seed, "batches", round, device)
    found: list[Indices] = []
    left = indices[:0]
    for count in own.tolist():
        if not len(left):
            left = rng.permutation(indices)
        assert count <= len(left), "a share ends with its pass"
        found.append(left[:count])
        left = left[count:]
    return found
