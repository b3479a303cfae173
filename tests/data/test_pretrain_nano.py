"""The script behind the nano ViT: no digit is ever drawn, and its pictures look like the digits set."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from sflam.data.sources import digits

SCRIPT = Path(__file__).parents[2] / "scripts" / "pretrain_nano.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pretrain_nano", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_digit_in_any_form_is_drawn(script: ModuleType) -> None:
    assert all(script.is_digit(character) for character in "0123456789²③⑹½Ⅷ٣५Ƽƻ")
    drawn = script.characters()
    assert len(drawn) > 500 and not any(script.is_digit(character) for character in drawn)
    assert {"A", "z", "Ω", "ж", "&"} <= set(drawn) and "é" not in drawn


def test_characters_that_look_alike_share_a_class(script: ModuleType) -> None:
    ink = np.zeros((48, 48), dtype=np.uint8)
    ink[10:40, 20:30] = 255
    other = ink.T.copy()
    assert script.merge({"A": ink, "Α": ink, "B": other}) == ["AΑ", "B"]


def test_handwriting_has_the_levels_and_the_ink_of_the_digits(script: ModuleType) -> None:
    import torch
    from PIL import ImageFont

    font = ImageFont.truetype(str(script.FONTS / "DejaVuSans.ttf"), 96)
    drawings = np.stack([script.draw(character, font) for character in "AbΩжR&"])
    assert script.draw(".", font) is None
    glyphs = torch.from_numpy(drawings[:, None].astype(np.float32) / 255).repeat(20, 1, 1, 1)
    images = script.handwrite(glyphs, torch.Generator().manual_seed(0)).numpy()
    again = script.handwrite(glyphs, torch.Generator().manual_seed(0)).numpy()
    real = digits().inputs
    assert images.shape == (120, 8, 8, 1) and images.dtype == np.uint8
    assert np.array_equal(images, again)
    assert set(np.unique(images)) <= set(np.unique(real))
    assert abs(images.mean() - real.mean()) < 0.1 * real.mean()
