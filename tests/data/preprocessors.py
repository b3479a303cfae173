"""A model's side for tests of sources: letters as token ids between two marks, small grey or coloured images."""

from __future__ import annotations

from sflam.data.images import ImageSpec
from sflam.data.preprocessor import Preprocessor

FIRST, LAST = 1, 2


def letters(texts: list[str], limit: int) -> list[list[int]]:
    """Return one id per letter between two marks, both of which survive a cut."""
    return [[FIRST, *map(ord, text[: limit - 2] if limit else text), LAST] for text in texts]


def preprocessor(*, longest: int = 0, side: int = 4, channels: int = 3) -> Preprocessor:
    """Return the side of a model that sees ``longest`` tokens, or images of ``side`` pixels."""
    half = (0.5,) * channels
    spec = ImageSpec(size=side, channels=channels, mean=half, std=half)
    return Preprocessor(encode=letters, longest=lambda: longest, image=lambda: spec)
