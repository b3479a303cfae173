"""Decoded images into one uint8 array, in the order they come: of one size as they are, else in the model's.

H x W pixels, C channels, S x S a model's. Each image is kept once; nothing but the array holds them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.data.images import ImageSpec, fitted, pillow

Allocate = Callable[[tuple[int, ...]], NDArray[np.uint8]]
"""A shape to an array of that shape, whose content does not matter."""


def in_memory(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return an array that is nowhere else."""
    return np.empty(shape, np.uint8)


class Packing:
    """Fills an array [N, H, W, C] with images.

    The first image decides the shape. Where one is larger than the model's, or two differ in size, all become S x S
    in the model's own colours at once, which gives the same pixels as resizing later; grey ones beside colour become
    RGB.
    """

    def __init__(self, count: int, spec: ImageSpec, allocate: Allocate) -> None:
        """Expect ``count`` images for a model that reads ``spec``."""
        self.count = count
        self.spec = spec
        self.allocate = allocate
        self._pixels: NDArray[np.uint8] | None = None
        self._done = 0
        self._all_fitted = False

    def add(self, image: Any) -> None:
        """Add the next Pillow image, of mode L or RGB."""
        large = image.width * image.height > self.spec.size**2
        pixels = _array(fitted(image, self.spec) if large or self._all_fitted else image)
        if self._pixels is None:
            self._pixels = self.allocate((self.count, *pixels.shape))
            self._all_fitted = large
        elif pixels.shape[:2] != self._pixels.shape[1:3]:
            self._fit()
            pixels = _array(fitted(image, self.spec))
        elif pixels.shape[2] > self._pixels.shape[3]:
            self._widen()
        assert self._pixels is not None
        self._pixels[self._done] = pixels  # one channel is repeated
        self._done += 1

    def images(self) -> NDArray[np.uint8]:
        """Return all of them, uint8 [N, H, W, C]."""
        assert self._pixels is not None and self._done == self.count, "every image was added"
        return self._pixels

    def _fit(self) -> None:
        """Make what is there of the model's size and colours; what comes later will be."""
        before, self._all_fitted = self._taken(), True
        image_of = pillow("reading image files").fromarray
        self._pixels = self.allocate((self.count, self.spec.size, self.spec.size, self.spec.channels))
        for index, pixels in enumerate(before):
            self._pixels[index] = _array(
                fitted(image_of(pixels[..., 0] if pixels.shape[-1] == 1 else pixels), self.spec)
            )

    def _widen(self) -> None:
        """Give what is there three channels."""
        before = self._taken()
        self._pixels = self.allocate((self.count, *before.shape[1:3], 3))
        self._pixels[: self._done] = before

    def _taken(self) -> NDArray[np.uint8]:
        assert self._pixels is not None
        return self._pixels[: self._done]


def _array(image: Any) -> NDArray[np.uint8]:
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]
