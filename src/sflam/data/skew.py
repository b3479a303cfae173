"""What makes the data of devices unlike beyond who holds what: how images look, and wrong labels. N samples, K devices.

Both touch training samples alone, on the devices' side; each device draws from a stream of its own, so that a device
that holds only its part gets the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sflam.data.dataset import Dataset
from sflam.data.partitions.contract import Part
from sflam.data.settings import DataSettings
from sflam.errors import DataError
from sflam.seeds import generator


def flipped(
    settings: DataSettings, train: Dataset, parts: Sequence[Part], seed: int
) -> tuple[Dataset, tuple[int, ...]]:
    """Return the samples with the share ``data.flipped`` of the labels of some devices changed; and each one's flips.

    Of n labels, round(share n) are drawn without replacement, and each becomes one of the other classes, all equally
    likely: symmetric label noise, D. Angluin and P. Laird, "Learning From Noisy Examples", Machine Learning 2, 1988.

    Raises:
        DataError: there are no classes to flip, or no such device.
    """
    flips = [0] * len(parts)
    if not settings.flipped:
        return train, tuple(flips)
    if len(train.classes) < 2:
        raise DataError(
            f"data.flipped = {settings.flipped:g} flips labels, and {train.name} has {len(train.classes)} classes; "
            "name the labels, or set it to 0"
        )
    if (last := max(settings.flipped_devices)) >= len(parts):
        raise DataError(
            f"data.flipped_devices names device {last}, but there are {len(parts)}: 0 to {len(parts) - 1}"
        )
    labels = train.labels.copy()
    for device in settings.flipped_devices:
        rng, part = generator(seed, "flips", device), parts[device]
        flips[device] = round(settings.flipped * len(part))
        drawn = rng.choice(part, flips[device], replace=False)
        labels[drawn] = (labels[drawn] + rng.integers(1, len(train.classes), len(drawn))) % len(train.classes)
    return replace(train, labels=labels), tuple(flips)


def noisy(settings: DataSettings, train: Dataset, parts: Sequence[Part], seed: int) -> Dataset:
    """Return the images with Gaussian noise of variance ``data.noise`` k/K on the pixels, in 0..1, of device k = 1..K.

    Pixels stay whole levels of 0..255: noise beyond black or white is cut off.

    Source: Q. Li, Y. Diao, Q. Chen, B. He, "Federated Learning on Non-IID Data Silos: An Experimental Study",
    ICDE 2022, arXiv:2102.02079, noise-based feature imbalance, Gau(sigma k/K), there over equal random parts. Their
    program (NIID-Bench) takes sigma (k - 1)/(K - 1) as the standard deviation, so numbers are not those of its option.

    Raises:
        DataError: the samples are texts.
    """
    if not settings.noise:
        return train
    if train.kind != "image":
        raise DataError(
            f"data.noise = {settings.noise:g} is noise on pixels, and {train.name} holds texts; set it to 0 (for texts "
            'that are unlike, data.partition = "clusters")'
        )
    pixels = train.inputs.copy()
    for device, part in enumerate(parts):
        deviation = 255 * np.sqrt(settings.noise * (device + 1) / len(parts))
        rng = generator(seed, "noise", device)
        noise = deviation * rng.standard_normal(pixels[part].shape, dtype=np.float32)
        pixels[part] = np.clip(np.rint(pixels[part] + noise), 0, 255).astype(np.uint8)
    return replace(train, inputs=pixels)


def shifted(settings: DataSettings, train: Dataset, parts: Sequence[Part]) -> Dataset:
    """Return the images as each device's camera shows them: turned, stretched around middle grey, and brightened.

    With u = (2 k - K - 1) / (K - 1) of device k = 1..K (0 for one device), a pixel x in 0..1 of the image, turned by
    u rotation degrees, becomes 0.5 + (1 + u contrast) (x - 0.5) + u brightness, cut off at black and white. What comes
    in at the edges of a turned image is its nearest pixel.

    Source: feature shift between clients by a transformation of each client's own, as in rotated MNIST of A. Ghosh et
    al., "An Efficient Framework for Clustered Federated Learning", NeurIPS 2020, arXiv:2006.04088.

    Raises:
        DataError: the samples are texts.
    """
    asked = {key: getattr(settings, key) for key in ("brightness", "contrast", "rotation")}
    if not any(asked.values()):
        return train
    if train.kind != "image":
        key, value = next((key, value) for key, value in asked.items() if value)
        raise DataError(
            f"data.{key} = {value:g} changes images, and {train.name} holds texts; set it to 0 (for texts that are "
            'unlike, data.partition = "column" or "clusters")'
        )
    pixels = train.inputs.copy()
    for device, part in enumerate(parts):
        place = (2 * device + 1 - len(parts)) / max(1, len(parts) - 1)
        own = _turned(pixels[part], place * settings.rotation).astype(np.float32)
        own = 127.5 + (1 + place * settings.contrast) * (own - 127.5) + 255 * place * settings.brightness
        pixels[part] = np.clip(np.rint(own), 0, 255).astype(np.uint8)
    return replace(train, inputs=pixels)


def _turned(images: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Return images [n, H, W, C] turned counter-clockwise by bilinear interpolation."""
    if not degrees:
        return images
    from scipy.ndimage import rotate

    # From the first axis (down) to the second (right) is counter-clockwise on a screen.
    turned: NDArray[np.uint8] = rotate(images, degrees, axes=(1, 2), reshape=False, order=1, mode="nearest")
    return turned
