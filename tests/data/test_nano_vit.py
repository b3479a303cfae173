"""The bundled nano ViT: what is in the folder, and that it loads as a fresh classifier on its own pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import sflam
from sflam.data.images import ImageSpec, to_pixels
from sflam.data.sources import digits

FOLDER = Path(sflam.__file__).parent / "model" / "nano_vit"


def test_the_files_are_small_and_hold_only_a_float32_backbone() -> None:
    weights = (FOLDER / "model.safetensors").read_bytes()
    assert len(weights) < 2_000_000
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    assert {entry["dtype"] for entry in tensors.values()} == {"F32"}
    assert not any("classifier" in name or "pooler" in name for name in tensors)
    values = np.frombuffer(weights, dtype="<f4", offset=8 + int.from_bytes(weights[:8], "little"))
    assert np.isfinite(values).all() and 400_000 < values.size < 500_000


def test_the_shape_is_the_documented_one() -> None:
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    assert (config["image_size"], config["patch_size"], config["num_channels"]) == (16, 4, 1)
    assert config["hidden_size"] % 32 == 0  # rotations of the cut work in power-of-two blocks
    assert config["hidden_dropout_prob"] == config["attention_probs_dropout_prob"] == 0.0
    assert "id2label" not in config  # no trace of the glyph classes
    assert ImageSpec.from_folder(FOLDER, config) == ImageSpec(size=16, channels=1, mean=(0.5,), std=(0.5,))


def test_it_loads_with_only_a_new_classifier_and_tells_digits_apart() -> None:
    """The class tokens of unseen digits are nearest to those of their own class far above chance (0.1)."""
    import torch
    from transformers import ViTForImageClassification

    model, info = ViTForImageClassification.from_pretrained(FOLDER, num_labels=10, output_loading_info=True)
    assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    images = digits().take(np.arange(600))
    pixels = to_pixels(images.inputs, ImageSpec(size=16, channels=1, mean=(0.5,), std=(0.5,)))
    with torch.no_grad():
        tokens = model.vit(pixel_values=torch.from_numpy(pixels)).last_hidden_state[:, 0].numpy()
    centres = np.stack([tokens[:300][images.labels[:300] == digit].mean(axis=0) for digit in range(10)])
    guesses = ((tokens[300:, None] - centres) ** 2).sum(axis=-1).argmin(axis=1)
    assert np.mean(guesses == images.labels[300:]) > 0.8
