"""Packing: exactly the stated bits, for every width and any count, in NumPy and torch alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.codec import packing, torch_packing
from sflam.sizes import codes_bytes


def random_codes(bits: int, count: int, seed: int) -> npt.NDArray[np.unsignedinteger]:
    codes = np.random.default_rng(seed).integers(0, 1 << bits, count)
    return codes.astype(np.uint8 if bits <= 8 else np.uint16)


def definition(codes: npt.NDArray[np.unsignedinteger], bits: int) -> bytes:
    """The whole format in one line: code i times 2^(i bits), summed, as a little-endian integer."""
    total = sum(int(code) << (i * bits) for i, code in enumerate(codes))
    return total.to_bytes(-(-len(codes) * bits // 8), "little")


@settings(deadline=None, max_examples=60)
@given(bits=st.integers(1, 16), count=st.integers(0, 70), seed=st.integers(0, 2**32))
def test_every_width_and_odd_length_packs_to_the_definition_and_back(
    bits: int, count: int, seed: int
) -> None:
    codes = random_codes(bits, count, seed)
    packed = packing.pack(codes, bits)
    assert packed.tobytes() == definition(codes, bits)
    assert np.array_equal(packing.unpack(packed, bits, count), codes)


@pytest.mark.parametrize("bits", range(1, 17))
def test_codes_are_really_packed_not_one_per_byte(bits: int) -> None:
    for count in (1, 7, 1001, 4096):
        packed = packing.pack(random_codes(bits, count, count), bits)
        assert packed.size == codes_bytes(count, 1, bits) == -(-count * bits // 8)


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("count", [0, 1, 8, 9, 1003])
def test_torch_packs_the_same_bytes(bits: int, count: int) -> None:
    codes = random_codes(bits, count, 3)
    packed = torch_packing.pack(torch.tensor(codes.tolist(), dtype=torch.int64), bits)
    assert packed.numpy().tobytes() == packing.pack(codes, bits).tobytes()
    assert np.array_equal(torch_packing.unpack(packed, bits, count).numpy(), codes)


@pytest.mark.parametrize("bits", range(1, 17))
def test_packing_leaves_its_input_alone_and_reads_read_only_bytes(bits: int) -> None:
    codes = random_codes(bits, 40, 1)
    before = codes.copy()
    packed = np.frombuffer(b"x" + packing.pack(codes, bits).tobytes(), np.uint8)[1:]  # read-only, unaligned
    assert np.array_equal(codes, before)
    assert np.array_equal(packing.unpack(packed, bits, 40), codes)
