"""Resizing uint8 images in NumPy, the very numbers of Pillow's ``resize``, so that a device needs no Pillow for arrays.

Pillow's resampling (``Resample.c``): each axis is a product with a banded matrix of whole numbers, 22 bits after the
point, the horizontal one first, each rounded to uint8. Products of float64 are exact here: all sums are below 2^53.
From release 13 on Pillow takes the vertical one first where the height shrinks much more than the width; some pixels
then differ, mostly by one level. H x W pixels, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

PRECISION = 22
CUBIC = -0.5


def _triangle(x: float) -> float:
    return max(0.0, 1.0 - abs(x))


def _cubic(x: float) -> float:
    x, a = abs(x), CUBIC
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    return (((x - 5.0) * x + 8.0) * x - 4.0) * a if x < 2.0 else 0.0


def _box(x: float) -> float:
    return 1.0 if -0.5 < x <= 0.5 else 0.0


def _hamming(x: float) -> float:
    x = abs(x)
    if x == 0.0:
        return 1.0
    if x >= 1.0:
        return 0.0
    x *= math.pi
    return math.sin(x) / x * (0.54 + 0.46 * math.cos(x))


def _sinc(x: float) -> float:
    return 1.0 if x == 0.0 else math.sin(x * math.pi) / (x * math.pi)


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / 3) if -3.0 <= x < 3.0 else 0.0


FILTERS: dict[int, tuple[Callable[[float], float], float]] = {
    1: (_lanczos, 3.0),
    2: (_triangle, 1.0),
    3: (_cubic, 2.0),
    4: (_box, 0.5),
    5: (_hamming, 1.0),
}
"""Pillow's number of a filter -> the filter and its support; 0, the nearest pixel, is none of them."""


def resized(image: NDArray[np.uint8], height: int, width: int, filter: int) -> NDArray[np.uint8]:
    """Return uint8 [H', W', C] of an image [H, W, C] by one of ``FILTERS``."""
    if image.shape[1] != width:
        weights = _weights(image.shape[1], width, filter)
        image = _rounded(np.matmul(weights, image.astype(np.float64)))
    if image.shape[0] != height:
        weights = _weights(image.shape[0], height, filter)
        flat = image.astype(np.float64).reshape(image.shape[0], -1)
        image = _rounded(weights @ flat).reshape(height, *image.shape[1:])
    return image


def _rounded(sums: NDArray[np.float64]) -> NDArray[np.uint8]:
    whole: NDArray[np.int64] = (sums.astype(np.int64) + (1 << (PRECISION - 1))) >> PRECISION
    return np.clip(whole, 0, 255).astype(np.uint8)


@lru_cache(maxsize=8)
def _weights(size: int, out: int, filter: int) -> NDArray[np.float64]:
    """Return [out, size], whole numbers."""
    shape, support = FILTERS[filter]
    scale = size / out
    stretched = max(scale, 1.0)
    support *= stretched
    found = np.zeros((out, size))
    for at in range(out):
        center = (at + 0.5) * scale
        first = max(0, int(center - support + 0.5))
        last = min(size, int(center + support + 0.5))
        own = [shape((x - center + 0.5) * (1.0 / stretched)) for x in range(first, last)]
        total = sum(own)
        for x, weight in zip(range(first, last), own, strict=True):
            exact = (weight / total if total else weight) * (1 << PRECISION)
            found[at, x] = int(exact - 0.5) if exact < 0 else int(exact + 0.5)
    return found
