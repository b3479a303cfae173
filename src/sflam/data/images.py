"""uint8 images to the float pixels a model expects: resize, grey or RGB, rescale, normalise.

What Hugging Face image processors do for ViT-like models, in Pillow and NumPy, so that neither torchvision
nor a particular release of transformers decides the numbers. N images, H x W pixels, C channels, S x S out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.data.resize import FILTERS, resized
from sflam.errors import DataError
from sflam.files import from_json

PREPROCESSOR = "preprocessor_config.json"
BILINEAR = 2  # Pillow's and Hugging Face's number for it
RESAMPLES = range(6)


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """What a model's images look like.

    Attributes:
        size: S, the side of the square input in pixels.
        channels: 1 (grey) or 3 (RGB).
        mean: per channel, subtracted after rescaling to 0..1.
        std: per channel, divided by after that.
        resample: Pillow's number of the resize filter; 2 is bilinear, 3 bicubic.
    """

    size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int = BILINEAR

    def __post_init__(self) -> None:
        if self.size < 1 or self.channels not in (1, 3):
            raise DataError(
                f"a model of {self.channels} channels and {self.size} x {self.size} pixels cannot be fed; "
                "images have 1 or 3 channels and at least one pixel"
            )
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise DataError(
                f"{len(self.mean)} means and {len(self.std)} deviations for {self.channels} channels; "
                "give one of each per channel"
            )
        if not all(np.isfinite(self.mean)) or not all(value > 0 for value in self.std):
            raise DataError(
                f"image_mean {self.mean} and image_std {self.std}: finite means, positive deviations"
            )
        if self.resample not in RESAMPLES:
            raise DataError(
                f"resample {self.resample} is not a Pillow filter; choose 2 (bilinear) or 3 (bicubic)"
            )

    @classmethod
    def from_dicts(cls, preprocessor: Mapping[str, Any], config: Mapping[str, Any]) -> ImageSpec:
        """Return the spec of a model from its ``preprocessor_config.json`` and its ``config.json``.

        Size and channels are the model's: its position embeddings allow no other. Every image is resized to
        the whole square (no centre crop). Without ``image_mean`` and ``image_std`` both are 0.5, as for ViT.

        Raises:
            DataError: the two files do not describe square images of 1 or 3 channels.
        """
        size, channels = _square(config.get("image_size", 224)), int(config.get("num_channels", 3))
        mean, std = preprocessor.get("image_mean") or 0.5, preprocessor.get("image_std") or 0.5
        if not preprocessor.get("do_normalize", True):
            mean, std = 0.0, 1.0
        scale = 255 * float(preprocessor.get("rescale_factor", 1 / 255))
        if not preprocessor.get("do_rescale", True):
            scale = 255.0
        # (scale x - mean) / std with x in 0..1: the scale is folded into both constants.
        return cls(
            size=size,
            channels=channels,
            mean=tuple(value / scale for value in _per_channel(mean, channels)),
            std=tuple(value / scale for value in _per_channel(std, channels)),
            resample=int(preprocessor.get("resample", BILINEAR)),
        )

    @classmethod
    def from_folder(cls, folder: Path, config: Mapping[str, Any]) -> ImageSpec:
        """Return the spec of the model in ``folder``; a missing preprocessor file means ViT's defaults.

        Raises:
            DataError: the file is not JSON, or describes images that cannot be made.
        """
        path = Path(folder) / PREPROCESSOR
        preprocessor: Any = {}
        if path.is_file():
            try:
                preprocessor = from_json(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise DataError(f"{path}: not JSON ({error}); fetch the model again") from error
        if not isinstance(preprocessor, dict):
            raise DataError(
                f"{path}: holds a {type(preprocessor).__name__}, not an object; fetch the model again"
            )
        return cls.from_dicts(preprocessor, config)


def to_pixels(images: NDArray[np.uint8], spec: ImageSpec) -> NDArray[np.float32]:
    """Return float32 [N, C, S, S] for uint8 [N, H, W, 1 or 3] images.

    RGB becomes grey by the ITU-R 601 luma weights, grey becomes RGB by repetition; both, like the resize,
    round to uint8 as Pillow does, so that the pixels equal those of Hugging Face's Pillow path.
    """
    assert images.ndim == 4 and images.dtype == np.uint8, (images.shape, images.dtype)
    square = np.empty((len(images), spec.size, spec.size, spec.channels), np.uint8)
    resize = _resize(images.shape[1], spec)
    for index, image in enumerate(images):
        coloured = in_colours(image, spec.channels)
        square[index] = coloured if coloured.shape == square.shape[1:] else resize(coloured)
    mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
    pixels_NCSS = np.empty((len(images), spec.channels, spec.size, spec.size), np.float32)
    pixels_NCSS[...] = square.transpose(0, 3, 1, 2)
    pixels_NCSS *= np.float32(1 / 255)
    pixels_NCSS -= mean[:, None, None]
    pixels_NCSS /= std[:, None, None]
    return pixels_NCSS


def in_colours(images: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Return uint8 [..., 1 or 3] with so many channels, the very numbers of Pillow's ``convert``."""
    if images.shape[-1] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=-1)
    # Pillow's 16-bit weights of ITU-R 601
    weighted = images.astype(np.uint32) * np.array([19595, 38470, 7471], np.uint32)
    luma: NDArray[np.uint32] = (weighted.sum(axis=-1, keepdims=True, dtype=np.uint32) + 0x8000) >> 16
    return luma.astype(np.uint8)


def _resize(height: int, spec: ImageSpec) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """Return what resizes images of a height to the model's square: without Pillow where that changes no bit."""

    def by_numpy(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return resized(image, spec.size, spec.size, spec.resample)

    if spec.resample in FILTERS and height <= spec.size:
        return by_numpy
    try:
        image_of = pillow(f"resample {spec.resample} of the model's images").fromarray
    except DataError:
        if spec.resample in FILTERS:
            return by_numpy
        raise

    def by_pillow(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        stored = fitted(image_of(image[..., 0] if spec.channels == 1 else image), spec)
        return np.asarray(stored).reshape(spec.size, spec.size, spec.channels)

    return by_pillow


def pillow(what: str) -> Any:
    """Return Pillow's module of images; raises DataError, which names ``what`` needs it, where it is not installed."""
    try:
        from PIL import Image
    except ImportError:
        raise DataError(
            f"{what} needs Pillow; pip install 'sflam[device-images]' on a device without torch, 'sflam[train]' "
            "elsewhere, or give arrays of pixels in an .npz"
        ) from None
    return Image


def fitted(image: Any, spec: ImageSpec) -> Any:
    """Return a Pillow image in the model's colours, then of its size."""
    image_module = pillow("resizing images")
    mode, side = ("L" if spec.channels == 1 else "RGB"), (spec.size, spec.size)
    image = image if image.mode == mode else image.convert(mode)
    return image if image.size == side else image.resize(side, image_module.Resampling(spec.resample))


def _square(size: Any) -> int:
    sides = list(size) if isinstance(size, Sequence) else [size]
    if len(set(sides)) != 1:
        raise DataError(f"a model for {' x '.join(map(str, sides))} images; only square images are supported")
    return int(sides[0])


def _per_channel(value: Any, channels: int) -> list[float]:
    values = [float(item) for item in value] if isinstance(value, Sequence) else [float(value)]
    if len(values) == 1:
        return values * channels
    if channels == 1:
        return [sum(values) / len(values)]
    return values
