"""Prompts and their answers as token ids: instruction tuning learns the answers alone. N texts, T tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sflam.data.preprocessor import Preprocessor
from sflam.data.texts import expect_texts, padded

Tokens = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]


def answered(
    prompts: Sequence[str | None],
    answers: Sequence[str | None],
    place: Callable[[int], str],
    preprocessor: Preprocessor,
    max_tokens: int,
    notes: list[str],
) -> Tokens:
    """Return token ids as int64 [N,T], zeros on the right, the valid tokens of each row and those of its prompt, [N].

    Each is tokenized by itself, so that no token holds the end of a prompt and the beginning of its answer.

    Args:
        prompts: what is given.
        answers: what follows, and is learnt.
        place: index -> what to call a text in an error.
        preprocessor: the model's tokenizer and its limit.
        max_tokens: rows are cut after so many tokens; 0 and larger numbers mean the model's own limit.
        notes: how many answers were cut is added here.

    Raises:
        DataError: a prompt is empty, or gives no token; it is named.
    """
    expect_texts(prompts, place)
    first = preprocessor.encode([str(text) for text in prompts], 0)
    second = preprocessor.answers([str(text) for text in answers])
    limits = [limit for limit in (max_tokens, preprocessor.longest()) if limit]
    limit = min(limits, default=0)
    rows = [[*given, *follows] for given, follows in zip(first, second, strict=True)]
    cut = [bool(limit) and len(row) > limit for row in rows]
    if any(cut):
        own = "the model's limit" if limit != max_tokens else "data.max_tokens"
        notes.append(f"{sum(cut)} of {len(rows)} prompts with answers were cut to {limit} tokens ({own})")
    ids, lengths = padded([row[:limit] if limit else row for row in rows], place)
    return ids, lengths, np.minimum([len(given) for given in first], lengths).astype(np.int32)
