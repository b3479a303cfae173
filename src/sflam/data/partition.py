"""Which device has which sample: from labels to one sorted index array per device.

Pure functions. Every sample lands on exactly one device and no device holds fewer than ``minimum``: nothing
is dropped, repeated, or drawn with replacement.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sflam.data.dataset import Dataset
from sflam.data.settings import DataSettings
from sflam.errors import DataError
from sflam.seeds import generator

QUANTILES = 10
"""Groups of equal size that texts without labels are divided into by length."""

REDRAWS = 20  # tries for a Dirichlet draw that keeps the minimum without repair

Labels = NDArray[np.int64]
Part = NDArray[np.int64]


def share_out(settings: DataSettings, train: Dataset, devices: int, seed: int) -> tuple[list[Part], str]:
    """Return the samples of each device, see :func:`partition`, and a note for the user where labels are missing.

    Texts without labels are shared out by length, except with ``iid``.
    """
    if train.classes or train.lengths is None or settings.partition == "iid":
        return partition(settings, train.labels, devices, seed), ""
    note = f"without labels, data.partition = {settings.partition} shares texts out by length, in {QUANTILES} groups"
    return partition(settings, length_groups(train.lengths), devices, seed), note


def partition(settings: DataSettings, labels: Labels, devices: int, seed: int) -> list[Part]:
    """Return the samples of each device as ``[data]`` sets it, from the stream ``partition``.

    Args:
        settings: partition, alpha, shards, minimum.
        labels: int64 [N], the labels of the training part, or :func:`length_groups` where there are none.
        devices: how many devices K share the samples.
        seed: the seed of the run.

    Returns:
        K sorted int64 arrays of positions in ``labels``.

    Raises:
        DataError: there are too few samples for ``devices`` times ``minimum``.
    """
    rng = generator(seed, "partition")
    if settings.partition == "iid":
        return iid(labels, devices, rng, settings.minimum)
    if settings.partition == "shards":
        return shards(labels, devices, settings.shards, rng, settings.minimum)
    return dirichlet(labels, devices, settings.alpha, rng, settings.minimum)


def iid(labels: Labels, devices: int, rng: np.random.Generator, minimum: int = 1) -> list[Part]:
    """Return a uniformly random partition of the N samples; sizes differ by at most one."""
    _check(len(labels), devices, minimum)
    order = rng.permutation(len(labels))
    return [np.sort(part) for part in np.array_split(order, devices)]


def dirichlet(
    labels: Labels, devices: int, alpha: float, rng: np.random.Generator, minimum: int = 1
) -> list[Part]:
    """Return a partition with a skewed class mix: class c is shared out by p_c ~ Dirichlet(alpha 1_K).

    A draw that leaves a device below ``minimum`` is redrawn, ``REDRAWS`` times at most. With a small alpha or
    many devices no draw may suffice, so the last one is then repaired by moving single samples (``_repair``).

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
    _check(len(labels), devices, minimum)
    if not (alpha > 0 and math.isfinite(alpha)):
        raise DataError(f"a Dirichlet partition with alpha {alpha} is impossible; alpha must be positive")
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(1 + REDRAWS):
        owners = _draw(members, len(labels), devices, alpha, rng)
        sizes = np.bincount(owners, minlength=devices)
        if sizes.min() >= minimum:
            break
    else:
        _repair(owners, sizes, minimum, rng)
    return _parts(owners, sizes)


def shards(labels: Labels, devices: int, each: int, rng: np.random.Generator, minimum: int = 1) -> list[Part]:
    """Return a partition where a device holds few classes: ``each`` of K * ``each`` pieces of the sorted samples.

    Samples are sorted by class, in random order within one, and cut into pieces whose sizes differ by at most one.
    With two pieces a device, most devices hold two classes. Where the rounding leaves a device below ``minimum``,
    single samples are moved (``_repair``).

    Source: H. B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Aguera y Arcas, "Communication-Efficient Learning
    of Deep Networks from Decentralized Data", AISTATS 2017, section 3.

    Args:
        labels: int64 [N].
        devices: K.
        each: pieces of a device, at least 1.
        rng: all randomness.
        minimum: fewest samples a device may hold.

    Raises:
        DataError: K * each or K * minimum exceeds N.
    """
    _check(len(labels), devices, minimum)
    if each < 1 or devices * each > len(labels):
        raise DataError(
            f"{devices} devices with {each} shards each need {devices * each} shards of {len(labels)} training "
            f"samples; set data.shards to at least 1 and at most {len(labels) // devices}"
        )
    shuffled = rng.permutation(len(labels))
    pieces = np.array_split(shuffled[np.argsort(labels[shuffled], kind="stable")], devices * each)
    owners = np.empty(len(labels), dtype=np.int64)
    for place, piece in enumerate(rng.permutation(devices * each)):
        owners[pieces[piece]] = place // each
    sizes = np.bincount(owners, minlength=devices)
    if sizes.min() < minimum:
        _repair(owners, sizes, minimum, rng)
    return _parts(owners, sizes)


def length_groups(lengths: NDArray[np.int32]) -> Labels:
    """Return int64 [N], the ``QUANTILES`` group of each text by its length, to skew where labels are missing.

    Equal lengths share a group, so groups of few distinct lengths are larger, and some may be empty.
    """
    edges = np.quantile(lengths, np.arange(1, QUANTILES) / QUANTILES)
    return np.searchsorted(edges, lengths, side="left").astype(np.int64)


def _check(samples: int, devices: int, minimum: int) -> None:
    if devices < 1 or minimum < 1:
        raise DataError(f"{devices} devices of at least {minimum} samples: both must be at least 1")
    if devices > samples:
        raise DataError(
            f"{devices} devices cannot share {samples} training samples; use at most {samples} devices"
        )
    if devices * minimum > samples:
        raise DataError(
            f"{devices} devices with at least {minimum} samples each need {devices * minimum} training "
            f"samples, but there are {samples}; set data.minimum to {samples // devices} or less, "
            f"or use at most {samples // minimum} devices"
        )


def _parts(owners: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[Part]:
    """Return the sorted samples of each device."""
    order = np.argsort(owners, kind="stable")
    return np.split(order, np.cumsum(sizes)[:-1])


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


def _repair(
    owners: NDArray[np.int64], sizes: NDArray[np.int64], minimum: int, rng: np.random.Generator
) -> None:
    """Move samples, one at a time, from the device that holds most to those below ``minimum``; in place.

    Without replacement: a moved sample leaves its former device. Takers are served in index order and ties
    between givers go to the lower index, so one generator state gives one result. A giver always has more
    than ``minimum``, since K * minimum <= N.
    """
    order = rng.permutation(len(owners))  # a giver loses random samples, not its first class
    stacks = [list(order[owners[order] == device]) for device in range(len(sizes))]
    for taker in np.flatnonzero(sizes < minimum):
        while sizes[taker] < minimum:
            giver = int(np.argmax(sizes))
            owners[stacks[giver].pop()] = taker
            sizes[giver] -= 1
            sizes[taker] += 1
