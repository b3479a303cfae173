"""Roots of decreasing functions: plain numbers and arrays take the same way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sflam.allocate import roots

NUMBERS = st.lists(
    st.tuples(st.floats(-3, 3), st.floats(0.05, 4), st.sampled_from([1e-3, 1.0, 30.0])),
    min_size=1,
    max_size=12,
)


@given(NUMBERS, st.booleans())
def test_few_elements_are_the_bits_of_many(values: list[tuple[float, float, float]], walks: bool) -> None:
    root, power, steep = (np.array(each) for each in zip(*values, strict=True))
    seen: list[int] = []

    def function(x: np.ndarray) -> np.ndarray:
        seen.append(len(x))
        return -np.sign(x - root) * np.abs(steep * (x - root)) ** power

    low, high = np.full(len(values), -2.5), np.full(len(values), 2.0)
    guess = np.where(np.arange(len(values)) % 2, root + 0.1, np.nan) if walks else None
    few = roots.bisect(function, low, high, guess=guess)
    evaluated, seen = len(seen), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roots, "FEW", 0)
        many = roots.bisect(function, low, high, guess=guess)
    assert few.tobytes() == many.tobytes()
    assert evaluated == len(seen)
