"""``data.draw = "poisson"``: every sample of a device joins every step on its own, with rate q = B / n.

The rows of a step are drawn first, from the binomial distribution of n and q, then which samples they are, all sets of
that size alike: the same as a coin for every sample. So a server may know the numbers of rows, which it sees anyway,
and a device may draw from a secret of its own which samples come. A step may be empty. Source: "Poisson sampling" of
Balle, Barthe and Gaboardi, NeurIPS 2018.

n samples of a device, B rows of a mini-batch as ``learn.batch`` has it; q = 1 where n is less.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

from sflam.data.batches import Indices
from sflam.seeds import derive, generator

_BEYOND = 1e-12
"""Chance that a step would have more rows than :func:`most_drawn`; it then has that many."""


def rate(samples: int, size: int) -> float:
    """Return q of a device with ``samples`` samples and mini-batches of ``size`` rows in the mean; 0 of none."""
    return min(1.0, size / samples) if samples else 0.0


def step_count(samples: int, size: int, steps: int, epochs: int) -> int:
    """Return the steps of a round: ``steps``, or as many as ``epochs`` passes would take; 0 of no samples."""
    return (steps or epochs * -(-samples // size)) if samples else 0


def most_drawn(size: int) -> int:
    """Return rows that no step exceeds: Bernstein's bound on a binomial variable of mean ``size``, to 1e-12."""
    log = -math.log(_BEYOND)
    return size + math.ceil(log / 3 + math.sqrt(log**2 / 9 + 2 * log * size))


def drawn_sizes(
    samples: int, size: int, *, seed: int, round: int, device: int, steps: int = 0, epochs: int = 1
) -> NDArray[np.int64]:
    """Return the rows of each step of a device's round, int64 [steps], from the stream ``poisson`` at (round, device).

    Args:
        samples: n.
        size: B.
        seed: of the run.
        round: with ``device``, the place in the stream.
        device: its index.
        steps: of the round; 0 takes as many as ``epochs`` passes.
        epochs: passes, where ``steps`` is 0.
    """
    rng = generator(seed, "poisson", round, device)
    found = rng.binomial(samples, rate(samples, size), step_count(samples, size, steps, epochs))
    return np.minimum(found, most_drawn(size)).astype(np.int64)


def batches_of_sizes(
    indices: Indices,
    sizes: NDArray[np.int64],
    *,
    seed: int,
    round: int,
    device: int,
    secret: bytes = b"",
    attempt: int = 0,
) -> list[Indices]:
    """Return a device's mini-batches of these ``sizes`` [steps], each a set of its samples drawn anew.

    Args:
        indices: its samples, int64 [n].
        sizes: as :func:`drawn_sizes` gives them.
        seed: of the run, which alone decides where there is no ``secret``.
        round: with ``device``, the place in the stream ``batches``.
        device: its index.
        secret: of the device, without which no one else knows which samples come.
        attempt: at the round; with a secret, a round that is opened anew has other samples.
    """
    rng = generator(seed, "batches", round, device)
    if secret:
        place = f"{derive(seed, 'batches', round, device)}:{attempt}".encode()
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(secret + place).digest(), "little"))
    return [indices[rng.choice(len(indices), int(rows), replace=False)] for rows in sizes]
