"""A model's own tokenizer: texts to the token ids its embedding knows."""

from __future__ import annotations

from typing import Any

import transformers

from sflam.errors import DataError
from sflam.model.backbone import locate, quiet, read_config

UNLIMITED = 10**9
"""Tokenizers without a limit report a number far above this."""


class Tokenizer:
    """The tokenizer in a model's folder, loaded when it is first needed.

    Args:
        name: the model: bundled, a local folder, or a hub name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._loaded: Any = None

    @property
    def loaded(self) -> Any:
        """The Hugging Face tokenizer; raises DataError when the model has none."""
        if self._loaded is None:
            self._loaded = _load(self.name)
        return self._loaded

    def encode(self, texts: list[str], limit: int) -> list[list[int]]:
        """Return the token ids of each text, special tokens included, cut to ``limit`` unless that is 0.

        Raises:
            DataError: the model has no tokenizer, or it cannot cut to so few tokens.
        """
        if not texts:
            return []
        cut = {"truncation": True, "max_length": limit} if limit else {}
        try:
            with quiet():  # the caller that cuts long rows reports them
                rows: list[list[int]] = self.loaded(texts, **cut)["input_ids"]
        except DataError:
            raise
        except Exception as error:  # tokenizers raise bare exceptions
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"the tokenizer of model {self.name!r} fails ({reason}); raise data.max_tokens"
            ) from error
        return rows

    def answers(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of what follows a prompt: nothing begins it, the tokenizer's end of text ends it.

        Raises:
            DataError: the model has no tokenizer, or it fails.
        """
        end = self.loaded.eos_token_id
        try:
            with quiet():
                rows: list[list[int]] = self.loaded(texts, add_special_tokens=False)["input_ids"]
        except Exception as error:  # tokenizers raise bare exceptions
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"the tokenizer of model {self.name!r} fails on an answer ({reason})") from error
        return rows if end is None else [[*row, int(end)] for row in rows]

    def longest(self) -> int:
        """Return the most tokens the model sees, 0 when nothing limits them."""
        config = read_config(self.name)
        positions = int(getattr(config, "max_position_embeddings", 0) or 0)
        if positions and config.model_type == "roberta":  # its positions begin after the padding id
            positions -= int(config.pad_token_id) + 1
        own = int(self.loaded.model_max_length)
        return min((limit for limit in (positions, own) if 0 < limit < UNLIMITED), default=0)


def _load(name: str) -> Any:
    missing = f"model {name!r} has no tokenizer, so texts cannot become its token ids"
    fix = "put the tokenizer's files into its folder, choose a model.name that has them, or give token ids in an .npz"
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(locate(name), trust_remote_code=False)
    except Exception as error:  # without files, each tokenizer class fails in its own way
        raise DataError(f"{missing} ({str(error).strip().splitlines()[0]}); {fix}") from error
    # Some classes make an empty one instead, to which every word is unknown.
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise DataError(f"{missing}; {fix}")
    return tokenizer
