"""The change of adapters in few bits: unbiased, of the stated size, one and the same on both sides, refused if not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sflam.codec.adapter_change import decode_change, encode_change
from sflam.codec.bodies import decode, encode
from sflam.codec.messages import ChangeFrame
from sflam.codec.quantizer import Packed
from sflam.codec.quantizers import quantizer
from sflam.errors import NotFiniteError, WireError
from sflam.learn.adapter_exchange import AdapterCodec
from sflam.sizes import ADAPTER_GROUP, FLOAT_BITS, HEADER_BYTES, adapter_body_bytes, adapter_groups

AT = {"seed": 3, "round": 2, "device": 1}
SIZES = st.integers(1, 3 * ADAPTER_GROUP + 5)


def drawn(size, dtype=np.float32, seed=0):
    """Return where a round began, and what it trained."""
    rng = np.random.default_rng(seed)
    start = rng.standard_normal(size).astype(dtype)
    return start, (start + 1e-3 * rng.standard_normal(size)).astype(dtype)


@given(SIZES, st.integers(1, 16), st.sampled_from([np.float32, np.float64]))
def test_a_body_has_its_stated_size_and_every_value_lies_within_a_step(size, bits, dtype):
    start, values = drawn(size, dtype, size)
    packed = encode_change(values, start, bits, **AT)
    body = encode(ChangeFrame(2, 1, 30, packed))
    assert len(body) == adapter_body_bytes(size, bits)
    message = decode(body)
    assert isinstance(message, ChangeFrame) and message.samples == 30
    found = decode_change(message.change, start)
    assert found.dtype == dtype and found.shape == (size,)
    groups = np.zeros(adapter_groups(size) * ADAPTER_GROUP)
    groups[:size] = values - start
    groups = groups.reshape(-1, ADAPTER_GROUP)
    reach = (groups.max(1) - groups.min(1)) / (2**bits - 1) * 1.01  # bfloat16 steps
    wrong = np.abs(found.astype(float) - values)
    assert (wrong <= np.repeat(reach, ADAPTER_GROUP)[:size] + 1e-6).all()


def test_8_bits_take_a_little_more_than_a_quarter_of_floats():
    size = 32 * ADAPTER_GROUP
    eight, floats = (adapter_body_bytes(size, bits) - HEADER_BYTES for bits in (8, FLOAT_BITS))
    assert eight / floats == (8 + 32 / ADAPTER_GROUP) / 32


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_mean_over_seeds_is_what_was_trained(bits):
    start, values = drawn(300)
    count, change = 4000, (values - start).astype(float)
    total = square = 0.0
    for seed in range(count):
        packed = encode_change(values, start, bits, seed=seed, round=0, device=0)
        wrong = quantizer("uniform").decode(packed).reshape(-1)[:300].astype(float) - change
        total, square = total + wrong, square + wrong**2
    mean, spread = total / count, np.sqrt(square / count)
    # Near a level few draws move a value, and their number is no normal one.
    assert (np.abs(mean) <= 4.8 * np.maximum(spread, 0.1 * spread.max()) / np.sqrt(count) + 1e-9).all()
    assert spread.max() > 10 * np.abs(mean).max()


def test_noise_differs_by_round_and_by_device():
    start, values = drawn(ADAPTER_GROUP)
    places = [AT, AT | {"round": 3}, AT | {"device": 2}, AT | {"seed": 4}]
    bodies = {encode_change(values, start, 4, **place).codes.tobytes() for place in places}
    assert len(bodies) == len(places)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_fleet_in_one_process_receives_what_a_server_reads(dtype):
    start, values = (torch.from_numpy(each).to(dtype) for each in drawn(200))
    codec = AdapterCodec(5, AT["seed"])
    found, size = codec.up(AT["round"], AT["device"], 9, values, start)
    packed = encode_change(values.numpy(), start.numpy(), 5, **AT)
    assert size == len(encode(ChangeFrame(AT["round"], AT["device"], 9, packed)))
    assert found.dtype == dtype
    assert np.array_equal(found.numpy(), decode_change(packed, start.numpy()))


def test_nothing_that_was_not_trained_moves():
    start, values = drawn(2 * ADAPTER_GROUP)
    values[:ADAPTER_GROUP] = start[:ADAPTER_GROUP]
    found = decode_change(encode_change(values, start, 3, **AT), start)
    assert np.array_equal(found[:ADAPTER_GROUP], start[:ADAPTER_GROUP])


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(wrong):
    start, values = drawn(10)
    values[3] = wrong
    with pytest.raises(NotFiniteError, match="lower the learning rate"):
        encode_change(values, start, 8, **AT)


def test_another_number_of_values_or_scheme_is_refused():
    start, values = drawn(ADAPTER_GROUP)
    packed = encode_change(values, start, 8, **AT)
    with pytest.raises(WireError, match="2, 128"):
        decode_change(packed, np.zeros(ADAPTER_GROUP + 1, np.float32))
    rotated = Packed("rotated", 8, 1, ADAPTER_GROUP, packed.codes, packed.side)
    with pytest.raises(WireError, match="rotated"):
        decode_change(rotated, start)


def test_the_largest_change_that_a_body_can_hold_arrives_finite():
    start = np.full(ADAPTER_GROUP, 1e38, np.float32)
    values = np.full(ADAPTER_GROUP, 3.3e38, np.float32)
    values[0] = 0
    packed = encode_change(values, np.zeros_like(start), 16, **AT)
    assert np.isfinite(decode_change(packed, start)).all()
