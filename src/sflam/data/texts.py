"""Texts as token ids, by a tokenizer that is passed in. N texts, T tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sflam.data.preprocessor import Preprocessor
from sflam.errors import DataError

CHUNK = 1000
"""Texts handed to the tokenizer at a time."""

Tokens = tuple[NDArray[np.int64], NDArray[np.int32]]


def tokenized(
    texts: Sequence[str | None],
    place: Callable[[int], str],
    preprocessor: Preprocessor,
    max_tokens: int,
    notes: list[str],
) -> Tokens:
    """Return token ids as int64 [N, T], zeros on the right, and the valid tokens of each row, int32 [N].

    Args:
        texts: the texts.
        place: index -> what to call a text in an error.
        preprocessor: the model's tokenizer and its limit.
        max_tokens: rows are cut after so many tokens; 0 and larger numbers mean the model's own limit.
        notes: how many were cut is added here.

    Raises:
        DataError: a text is empty, or gives no token; it is named.
    """
    expect_texts(texts, place)
    limits = [limit for limit in (max_tokens, preprocessor.longest()) if limit]
    limit = min(limits, default=0)
    rows: list[list[int]] = []
    cut = 0
    for start in range(0, len(texts), CHUNK):
        some = [str(text) for text in texts[start : start + CHUNK]]
        whole = preprocessor.encode(some, 0)
        long = [index for index, row in enumerate(whole) if limit and len(row) > limit]
        # Only the tokenizer knows which of its special tokens must survive the cut.
        for index, row in zip(long, preprocessor.encode([some[index] for index in long], limit), strict=True):
            whole[index] = row
        cut += len(long)
        rows += whole
    if cut:
        own = "the model's limit" if limit != max_tokens else "data.max_tokens"
        notes.append(f"{cut} of {len(texts)} texts were cut to {limit} tokens ({own})")
    return padded(rows, place)


def expect_texts(texts: Sequence[str | None], place: Callable[[int], str]) -> None:
    """Raise DataError where one of the texts is empty, or none at all."""
    blank = [index for index, text in enumerate(texts) if not (isinstance(text, str) and text.strip())]
    if blank:
        more = f" (and {len(blank) - 1} more)" if len(blank) > 1 else ""
        raise DataError(f"{place(blank[0])} is an empty text{more}; remove such rows")


def padded(rows: Sequence[Sequence[int]], place: Callable[[int], str]) -> Tokens:
    """Return rows of token ids as int64 [N,T], zeros on the right, and their lengths; raises DataError for none."""
    lengths = np.array([len(row) for row in rows], dtype=np.int32)
    if not lengths.all():
        raise DataError(f"{place(int(lengths.argmin()))} gives no token; remove such texts")
    ids = np.zeros((len(rows), int(lengths.max())), dtype=np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
    return ids, lengths
