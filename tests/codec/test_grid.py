"""The grid: bfloat16 offset and step, around every value of the token, as tight as bfloat16 allows."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sflam.codec import grid
from sflam.errors import QuantizerError

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def fit(low: float, high: float, bits: int) -> grid.Grid:
    return grid.fit(np.array([low], np.float32), np.array([high], np.float32), bits)


@settings(deadline=None, max_examples=300)
@given(a=FINITE, b=FINITE, bits=st.integers(1, 16))
@example(a=0.0, b=1e-45, bits=16)
@example(a=-0.0, b=0.0, bits=1)
@example(a=-1e-45, b=-1e-45, bits=4)
@example(a=1.0, b=1.0000001192092896, bits=16)
def test_the_grid_covers_the_range_and_no_smaller_step_would(a: float, b: float, bits: int) -> None:
    low, high, levels = min(a, b), max(a, b), 2**bits - 1
    try:
        found = fit(low, high, bits)
    except QuantizerError:
        assert max(high, high - low) * (1 + 2**-6) > 3.4e38 or -low > 3.38e38  # only near the end of float32
        return
    offset, step = float(found.offset[0, 0]), float(found.step[0, 0])
    top = Fraction(offset) + levels * Fraction(step)
    assert (
        offset <= low and top >= Fraction(high) - abs(Fraction(high)) / 2**53
    )  # inside, to float64's precision
    assert np.array_equal((found.side.astype(np.uint32) << 16).view(np.float32), [[offset, step]])
    assert not np.signbit(found.step[0, 0]) and not (offset == 0 and np.signbit(found.offset[0, 0]))
    neighbours = found.side[0].astype(np.int32) + np.array([1 if offset >= 0 else -1, -1])
    next_offset, smaller = (neighbours << 16).astype(np.int32).view(np.float32).astype(np.float64)
    assert next_offset > low or offset == low
    assert step == 0 or offset + smaller * levels < high
    assert (step == 0) == (offset == low == high)  # never a zero step for a token that needs one


@pytest.mark.parametrize("bits", range(1, 17))
def test_a_token_on_integer_levels_gets_exactly_that_grid(bits: int) -> None:
    found = fit(-4.0, -4.0 + 2**bits - 1, bits)
    assert (found.offset[0, 0], found.step[0, 0]) == (-4.0, 1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_are_refused_by_token(value: float) -> None:
    low = np.array([0, min(value, 0) if value == value else value], np.float32)
    high = np.array([1, max(value, 0) if value == value else value], np.float32)
    with pytest.raises(QuantizerError, match=r"token 1 .*finite"):
        grid.fit(low, high, 4)


@pytest.mark.parametrize(
    ("low", "high", "bits"),
    [
        (-3e38, 3e38, 8),
        (-3.4028235e38, 0, 8),
        (0, 3.4028235e38, 8),
        (3.4028235e38, 3.4028235e38, 1),
        (0, 3.4e38, 1),
    ],
)
def test_a_range_that_float32_cannot_hold_is_refused(low: float, high: float, bits: int) -> None:
    with pytest.raises(QuantizerError, match=r"token 0 .*float32"):
        fit(low, high, bits)


@pytest.mark.parametrize(
    ("offset", "step"),
    [(0x7F80, 0), (0xFF80, 0), (0x7FC0, 0), (0xFFFF, 0), (0, 0x7F80), (0, 0x7FC0), (0, 0x8000), (0, 0xBF80)],
)
def test_restore_refuses_what_no_encoder_writes(offset: int, step: int) -> None:
    with pytest.raises(QuantizerError, match="token 1"):
        grid.restore(np.array([[0, 0], [offset, step]], np.uint16), 8)


def test_restore_refuses_levels_beyond_float32() -> None:
    with pytest.raises(QuantizerError, match="float32"):
        grid.restore(np.array([[0, 0x7F7F]], np.uint16), 2)
