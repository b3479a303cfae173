"""What a model provides to turn raw texts and images into its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sflam.data.images import ImageSpec
from sflam.errors import DataError

Answers = Callable[[list[str]], list[list[int]]]
"""``texts -> token ids`` without the special tokens that begin a text, with the one that ends it."""

Encode = Callable[[list[str], int], list[list[int]]]
"""``(texts, limit) -> token ids``, special tokens included; no row longer than ``limit`` unless that is 0."""


def no_answers(texts: list[str]) -> list[list[int]]:
    """Refuse answers to prompts; raises DataError."""
    raise DataError(
        f"{len(texts)} answers to prompts (data.answer) cannot be read here; a device without torch learns whole texts"
    )


@dataclass(frozen=True, kw_only=True)
class Preprocessor:
    """A model's side of reading data, passed in by the caller; each part is called only when needed.

    Attributes:
        encode: the model's own tokenizer; raises DataError when it has none.
        answers: the same tokenizer, for what follows a prompt.
        longest: the most tokens the model sees, 0 when nothing limits them.
        image: what its images look like; raises DataError when it reads none.
    """

    encode: Encode
    longest: Callable[[], int]
    image: Callable[[], ImageSpec]
    answers: Answers = no_answers
