"""Rows of arrays, wherever they lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.data.mapped import mapped_arrays, rows_of
from sflam.errors import DataError


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("mapped") / "x.npz"
    rng = np.random.default_rng(0)
    np.savez(path, ids=rng.integers(0, 99, (7, 5)), image=rng.integers(0, 255, (7, 3, 4, 1)).astype(np.uint8))
    return path


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["ids", "image"]),
    indices=st.lists(st.integers(-3, 2), max_size=6),
    part=st.sampled_from([slice(None), slice(3, 6), slice(4, 7), slice(0, 6, 2)]),
    mapped=st.booleans(),
)
def test_rows_are_those_of_the_array(file, name, indices, part, mapped):
    with np.load(file) as plain:
        wanted = plain[name][part]
    array = mapped_arrays(file)[name][part] if mapped else wanted
    found = rows_of(array, np.array(indices, np.int64))
    assert found.dtype == wanted.dtype and np.array_equal(found, wanted[np.array(indices, np.int64)])
    found += 1  # the caller's own
    assert np.array_equal(array, wanted)


def test_no_such_row_and_a_shorter_file(tmp_path, file):
    (tmp_path / "y.npz").write_bytes(file.read_bytes())
    array = mapped_arrays(tmp_path / "y.npz")["image"]
    with pytest.raises(IndexError):
        rows_of(array, np.array([7]))
    with open(tmp_path / "y.npz", "r+b") as shorter:
        shorter.truncate(200)
    with pytest.raises(DataError, match="shorter"):
        rows_of(array, np.array([6]))
