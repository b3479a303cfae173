"""One grid for all devices: a sum of codes is the sum of the changes, in whole numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sflam.codec.adapter_change import decode_change, encode_change
from sflam.codec.bodies import decode, encode
from sflam.codec.common_grid import LEAST, grids, is_grid, sum_bits, sum_of_codes, weighted_mean
from sflam.codec.grid import restore
from sflam.codec.messages import AdapterFrame
from sflam.codec.packing import unpack
from sflam.errors import NotFiniteError, WireError
from sflam.sizes import ADAPTER_GROUP, HEADER_BYTES, adapter_groups, grid_bytes

BITS = st.integers(1, 16)


def changes(count, size, bits, seed, counts):
    """Return a grid, and the changes of some devices on it, some of them beyond."""
    rng = np.random.default_rng(seed)
    start = rng.standard_normal(size).astype(np.float32)
    reach = rng.uniform(0, 2e-3, adapter_groups(size)).astype(np.float32)
    side = grids(reach, bits)
    made = [
        encode_change(
            (start + 1e-3 * rng.standard_normal(size)).astype(np.float32),
            start, bits, seed=seed, round=1, device=device, side=side,
        )
        for device in range(count)
    ]  # fmt: skip
    return start, side, made


@given(BITS, st.integers(1, 300), st.lists(st.integers(1, 10**6), min_size=1, max_size=6), st.integers(0, 99))
def test_a_sum_of_codes_is_the_weighted_sum_exactly(bits, size, counts, seed):
    """In exact arithmetic: of fractions, not of floats."""
    _, side, made = changes(len(counts), size, bits, seed, counts)
    total = sum_of_codes(made, counts)
    assert int(total.max()).bit_length() <= sum_bits(bits, sum(counts))
    levels = restore(side, bits)
    for group, place in ((0, 0), (len(side) - 1, (size - 1) % ADAPTER_GROUP)):
        offset, step = (Fraction(float(each[group, 0])) for each in (levels.offset, levels.step))
        codes = [int(unpack(one.codes, bits, total.size)[group * ADAPTER_GROUP + place]) for one in made]
        exact = sum(n * (offset + step * code) for n, code in zip(counts, codes, strict=True))
        assert exact == offset * sum(counts) + step * int(total[group, place])
    mean = weighted_mean(total, sum(counts), side, bits).reshape(-1)[:size]
    own = [decode_change(one, np.zeros(size)) for one in made]
    assert np.allclose(mean, np.average(own, axis=0, weights=counts), rtol=0, atol=1e-6 * np.abs(mean).max())


def test_the_mean_over_seeds_is_the_change_within_the_grid():
    start, values = (
        np.zeros(ADAPTER_GROUP, np.float32),
        np.linspace(-0.9, 0.9, ADAPTER_GROUP, dtype=np.float32),
    )
    side, count = grids(np.ones(1, np.float32), 2), 4000
    made = [encode_change(values, start, 2, seed=s, round=0, device=0, side=side) for s in range(count)]
    found = np.array([decode_change(one, start) for one in made])
    assert (np.abs(found.mean(axis=0) - values) < 5 * found.std(axis=0) / count**0.5 + 1e-3).all()


def test_what_is_beyond_the_grid_becomes_its_end():
    start = np.zeros(ADAPTER_GROUP, np.float32)
    values = np.where(np.arange(ADAPTER_GROUP) % 2, 1e30, -1e30).astype(np.float32)
    found = decode_change(
        encode_change(values, start, 4, side=grids(np.ones(1, np.float32), 4), seed=1, round=0, device=0),
        start,
    )
    assert np.abs(np.abs(found) - 1).max() < 0.02 and (np.sign(found) == np.sign(values)).all()


def test_groups_that_did_not_move_may_move_again():
    reach = np.array([0, 0.256, 0], np.float32)
    levels = restore(grids(reach, 8), 8)
    assert (levels.step > 0).all() and -levels.offset[0, 0] == pytest.approx(0.256 * LEAST, rel=0.01)
    assert not is_grid(grids(np.zeros(3, np.float32), 8))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(wrong):
    values = np.zeros(ADAPTER_GROUP, np.float32)
    values[3] = wrong
    with pytest.raises(NotFiniteError, match="lower the learning rate"):
        encode_change(
            values,
            0 * np.nan_to_num(values),
            8,
            seed=1,
            round=0,
            device=0,
            side=grids(np.ones(1, np.float32), 8),
        )


def test_grids_of_other_groups_and_sums_over_different_grids_are_refused():
    start = np.zeros(300, np.float32)
    at = {"seed": 1, "round": 0, "device": 0}
    one, other = (grids(np.full(3, reach, np.float32), 8) for reach in (1, 2))
    with pytest.raises(WireError, match="3 were agreed"):
        encode_change(start, start, 8, side=one[:2], **at)
    with pytest.raises(WireError, match="a step"):
        encode_change(start, start, 8, side=np.array([[0, 0], [0, 0], [0, 1]], np.uint16), **at)
    made = [encode_change(start, start, 8, side=side, **at) for side in (one, other)]
    with pytest.raises(WireError, match="different grids"):
        sum_of_codes(made, [1, 1])


def test_grids_travel_with_the_adapters():
    values = np.arange(300, dtype=np.float32)
    side = grids(np.ones(3, np.float32), 8)
    body = encode(AdapterFrame(1, 2, 0, values, side))
    assert len(body) == HEADER_BYTES + 4 * 300 + grid_bytes(300)
    found = decode(body)
    assert np.array_equal(found.grid, side) and np.array_equal(found.values, values)
    assert decode(encode(AdapterFrame(1, 2, 0, values))).grid is None
    with pytest.raises(WireError, match="grid"):
        AdapterFrame(1, 2, 0, values, side[:1])
