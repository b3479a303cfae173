"""Messages hold only what fits together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sflam.codec.messages import AdapterFrame, GradientFrame
from sflam.errors import WireError
from sflam.sizes import COUNT_LIMIT
from tests.codec.frames import packed, step


def lengths(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: step(rows=-1), "rows is -1"),
        (lambda: step(rows=COUNT_LIMIT), "rows is 1000000000; it must be in 0..999999999"),
        (lambda: step(6, rows=4), "6 tokens in 4 rows without lengths"),
        (lambda: step(0, rows=0), "rows is 0"),
        (lambda: step(6, lengths=lengths(6)), "1 lengths for 2 rows"),
        (lambda: step(6, lengths=lengths(7, -1)), "lengths from -1 that sum to 6 for 6 tokens"),
        (lambda: step(6, lengths=lengths(3, 4)), "sum to 7 for 6 tokens"),
        (lambda: step(6, lengths=lengths(2**31 - 1, 2**31 - 1)), "sum to 4294967294 for 6"),
        (lambda: step(6, lengths=np.array([3, 3])), "lengths is int64"),
        (lambda: step(6, lengths=lengths(3, 3)[None]), r"lengths is int32 \[1, 2\]"),
        (lambda: step(labels=np.zeros(2)), "labels is float64"),
        (lambda: GradientFrame(-1, 0, 0, 0.0, None), "round is -1"),
        (lambda: GradientFrame(0, COUNT_LIMIT, 0, 0.0, packed(1, 1)), "step is 1000000000"),
        (lambda: AdapterFrame(0, 0, -5, np.zeros(1, np.float32)), "samples is -5"),
        (lambda: AdapterFrame(0, 0, 5, np.zeros(1, np.float16)), "values is float16"),
        (lambda: AdapterFrame(0, 0, 5, np.array([0, np.nan], np.float32)), "NaN or inf"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_number(build: Callable[[], object], message: str) -> None:
    with pytest.raises(WireError, match=message):
        build()


def test_rows_without_tokens_are_messages_too() -> None:
    assert step(0, rows=3, lengths=lengths(0, 0, 0)).activations.tokens == 0
    assert step(0, rows=3).activations.tokens == 0
