"""Sizes are whole-number polynomials of n, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sflam.errors import GraphError
from sflam.graph.size import N, Size, count_of, shape_of

sizes = st.lists(st.integers(-9, 9), max_size=2).map(Size.of)


def at(size: Size, n: int) -> int:
    return sum(c * n**power for power, c in enumerate(size.coefficients))


@given(sizes, sizes, st.integers(1, 20))
def test_arithmetic_is_that_of_the_values(a: Size, b: Size, n: int) -> None:
    assert at(a + b, n) == at(a, n) + at(b, n)
    assert at(a - b, n) == at(a, n) - at(b, n)
    assert at(a * b, n) == at(a, n) * at(b, n)
    assert a + b - b == a


@given(sizes)
def test_json_gives_the_size_back(a: Size) -> None:
    assert Size.from_json(a.to_json()) == a


@given(sizes, st.integers(1, 20))
def test_a_negative_size_is_refused_when_n_is_known(a: Size, n: int) -> None:
    if at(a, n) < 0:
        with pytest.raises(GraphError, match=f"for n = {n}"):
            a.at(n)
    else:
        assert a.at(n) == at(a, n)


def test_it_is_written_as_one_writes_it() -> None:
    assert [str(size) for size in (Size.of(0), N, N * N * 2 + 3, N - 1)] == [
        "0",
        "n",
        "3 + 2 n^2",
        "-1 + n",
    ]
    assert count_of(shape_of(2, N, N)) == N * N * 2
