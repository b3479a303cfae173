"""Datasets of a few samples for tests of partitions, and what every partition must be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sflam.data.dataset import Dataset, Origin

Labels = NDArray[np.int64]


def labelled(labels: Labels, origin: Origin | None = None) -> Dataset:
    """Return images of one pixel, their own number, with some labels."""
    pixels = np.arange(len(labels), dtype=np.int64).astype(np.uint8).reshape(-1, 1, 1, 1)
    classes = tuple(str(label) for label in range(int(labels.max()) + 1))
    return Dataset("few", "image", pixels, None, labels, classes, origin=origin)


def texts_of(lengths: Sequence[int], tokens: NDArray[np.int64] | None = None) -> Dataset:
    """Return texts of some lengths, without labels."""
    count = len(lengths)
    ids = np.ones((count, max(lengths)), dtype=np.int64) if tokens is None else tokens
    return Dataset("texts", "text", ids, np.array(lengths, np.int32), np.zeros(count, np.int64), ())


def assert_partition(parts: Sequence[Labels], samples: int, devices: int, minimum: int) -> None:
    """Assert that each sample is on exactly one device, and the minimum on each."""
    assert len(parts) == devices
    assert min(len(part) for part in parts) >= minimum
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(samples))
    assert all(part.dtype == np.int64 and np.all(np.diff(part) > 0) for part in parts)
