"""Stored images (bytes, files, Pillow images) as one uint8 array. N images, H x W pixels, C channels, S x S a model's.

Images of one size stay as they are; of different sizes, or larger than the model's, they become S x S in the
model's own colours at once, which gives the same pixels as resizing later and does not fill the memory.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.data.images import ImageSpec, fitted, pillow
from sflam.data.packing import Allocate, Packing, in_memory
from sflam.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def decoded(
    stored: Sequence[Any],
    place: Callable[[int], str],
    spec: Callable[[], ImageSpec],
    notes: list[str],
    allocate: Allocate = in_memory,
) -> NDArray[np.uint8]:
    """Return the images as uint8 [N, H, W, C], each decoded once and written where it stays.

    Args:
        stored: bytes, paths, Pillow images, or mappings with ``bytes`` and ``path``.
        place: index -> what to call an image in an error, "row 7 of ..." say; a stored path is named beside it.
        spec: called once for the model's size and colours.
        notes: what was converted is added here.
        allocate: shape -> an array of that shape to fill; called again where a later image changes the shape.

    Raises:
        DataError: an image cannot be read, which is named.
    """
    wanted = spec()
    packing = Packing(len(stored), wanted, allocate)
    sizes = set()
    for index, content in enumerate(stored):
        image = opened(content, place(index))
        sizes.add(image.size)
        packing.add(image)
    if len(sizes) > 1:
        widths, heights = zip(*sizes, strict=True)
        notes.append(
            f"images of {min(widths)} x {min(heights)} to {max(widths)} x {max(heights)} pixels were resized to the "
            f"model's {wanted.size} x {wanted.size}"
        )
    return packing.images()


def fitted_images(
    stored: Iterable[Any], place: Callable[[int], str], spec: ImageSpec
) -> Iterator[NDArray[np.uint8]]:
    """Yield each image as uint8 [1, S, S, C], in the model's own size and colours: what :func:`decoded` comes to later.

    Raises:
        DataError: an image cannot be read, which is named.
    """
    for index, content in enumerate(stored):
        pixels = np.asarray(fitted(opened(content, place(index)), spec))
        yield pixels.reshape(1, spec.size, spec.size, spec.channels)


def opened(stored: Any, named: str) -> Any:
    """Return a Pillow image in mode L or RGB, upright.

    Raises:
        DataError: it cannot be read; the image is ``named``.
    """
    image_module = pillow("reading image files")
    from PIL import ImageOps

    path = ""
    if isinstance(stored, Mapping):
        path = str(stored.get("path") or "")
        stored = stored.get("bytes") or path
    elif isinstance(stored, str | Path):
        path = str(stored)
    named += f" ({path})" if path and path not in named else ""
    if stored is None or (isinstance(stored, str | bytes) and not stored):
        raise DataError(f"{named}: holds no image; remove it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF data and the like: the pixels are what counts
            image: Any = stored
            if not isinstance(stored, image_module.Image):
                image = image_module.open(io.BytesIO(stored) if isinstance(stored, bytes) else stored)
            image.load()
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I;16"):  # Pillow would clip 16 bits to 8, not scale them
                image = image_module.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")
    except Exception as error:  # a damaged image makes Pillow's many parsers raise errors of any kind
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{named}: not an image that can be read ({reason}); repair or remove it") from error
