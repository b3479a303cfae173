"""What a model provides to turn raw texts and images into its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sflam.data.images import ImageSpec

Encode = Callable[[list[str], int], list[list[int]]]
"""``(texts, limit) -> token ids``, special tokens included; no row longer than ``limit`` unless that is 0."""


@dataclass(frozen=True, kw_only=True)
class Preprocessor:
    """A model's side of reading data, passed in by the caller; each part is called only when needed.

    Attributes:
        encode: the model's own tokenizer; raises DataError when it has none.
        longest: the most tokens the model sees, 0 when nothing limits them.
        image: what its images look like; raises DataError when it reads none.
    """

    encode: Encode
    longest: Callable[[], int]
    image: Callable[[], ImageSpec]
