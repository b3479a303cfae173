"""Pixels: the same numbers as Hugging Face's processor, grey and RGB, whatever the size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sflam.data.images import ImageSpec, to_pixels
from sflam.data.sources import digits
from sflam.errors import DataError

NANO = ImageSpec(size=16, channels=1, mean=(0.5,), std=(0.5,))
RGB = ImageSpec(size=32, channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def noise(*shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def test_digits_become_16_by_16() -> None:
    pixels = to_pixels(digits().inputs[:7], NANO)
    assert pixels.shape == (7, 1, 16, 16) and pixels.dtype == np.float32
    assert pixels.flags.c_contiguous and pixels.min() == -1.0 and pixels.max() <= 1.0


def test_without_resizing_it_is_plain_arithmetic() -> None:
    images = noise(2, 32, 32, 3)
    expected = (images / 255 - np.array(RGB.mean)) / np.array(RGB.std)
    assert np.abs(to_pixels(images, RGB) - expected.transpose(0, 3, 1, 2)).max() < 1e-5


def test_grey_becomes_rgb_and_back() -> None:
    grey, plain = noise(2, 32, 32, 1), ImageSpec(size=32, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    pixels = to_pixels(grey, plain)
    assert np.array_equal(pixels[:, 0], pixels[:, 2])
    back = ImageSpec(size=32, channels=1, mean=(0.0,), std=(1.0,))
    assert np.array_equal(to_pixels(np.repeat(grey, 3, axis=-1), back)[:, 0], pixels[:, 1])


def test_no_images() -> None:
    assert to_pixels(np.zeros((0, 8, 8, 1), np.uint8), NANO).shape == (0, 1, 16, 16)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 48), (8, 8)])
def test_equal_to_the_processor_of_transformers(height: int, width: int) -> None:
    backend = pytest.importorskip(
        "transformers.models.vit.image_processing_pil_vit",
        reason="this release of transformers has no Pillow processor for ViT (only torchvision's)",
    )
    processor = backend.ViTImageProcessorPil(
        size={"height": 32, "width": 32}, image_mean=list(RGB.mean), image_std=list(RGB.std), resample=2
    )
    images = noise(3, height, width, 3)
    expected = processor(list(images), return_tensors="np", input_data_format="channels_last")["pixel_values"]
    assert np.abs(to_pixels(images, RGB) - expected).max() < 1e-2


CONFIG = {"image_size": 32, "num_channels": 3}


def test_spec_from_a_model_folder(tmp_path: Path) -> None:
    assert ImageSpec.from_folder(tmp_path, CONFIG) == ImageSpec(
        size=32, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    written = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3], "resample": 3, "size": {"height": 99}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(written))
    spec = ImageSpec.from_folder(tmp_path, CONFIG)
    assert spec == ImageSpec(size=32, channels=3, mean=(0.1, 0.2, 0.3), std=(1, 2, 3), resample=3)


def test_rescaling_and_normalising_can_be_off() -> None:
    images = noise(1, 32, 32, 3)
    raw = ImageSpec.from_dicts({"do_rescale": False, "do_normalize": False}, CONFIG)
    assert np.allclose(to_pixels(images, raw), images.transpose(0, 3, 1, 2), atol=1e-3)
    half = ImageSpec.from_dicts({"rescale_factor": 1 / 127.5, "image_mean": 1.0, "image_std": 1.0}, CONFIG)
    assert np.allclose(to_pixels(images, half), images.transpose(0, 3, 1, 2) / 127.5 - 1, atol=1e-5)


def test_rgb_statistics_of_a_grey_model_are_averaged() -> None:
    spec = ImageSpec.from_dicts(
        {"image_mean": [0.4, 0.5, 0.6], "image_std": 0.5}, {"image_size": [16, 16], "num_channels": 1}
    )
    assert spec.mean == pytest.approx((0.5,)) and spec.size == 16


@pytest.mark.parametrize(
    ("preprocessor", "config", "message"),
    [
        ({}, {"image_size": [16, 32]}, "only square"),
        ({}, {"image_size": 16, "num_channels": 4}, "1 or 3 channels"),
        ({"image_mean": [0.5, 0.5]}, CONFIG, "2 means"),
        ({"image_std": [0.5, 0.5, 0.0]}, CONFIG, "positive deviations"),
        ({"resample": 9}, CONFIG, "not a Pillow filter"),
    ],
)
def test_what_cannot_be_fed(preprocessor: dict[str, Any], config: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ImageSpec.from_dicts(preprocessor, config)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_damaged_preprocessor_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(DataError, match="fetch the model again"):
        ImageSpec.from_folder(tmp_path, CONFIG)
