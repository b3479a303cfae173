"""torch and NumPy write the same bytes for one seed, and read them to the same floats.

The device path runs here on CPU tensors, where it must equal NumPy bit by bit; ``gpu`` tests repeat it.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.codec.quantizer import Packed
from sflam.codec.quantizers import quantizer
from sflam.codec.torch_quantizers import torch_quantizer
from sflam.codec.torch_rotation import decode_rotated, encode_rotated, round_trip_rotated
from sflam.codec.torch_uniform import decode_on_device, encode_on_device, round_trip_on_device
from sflam.errors import QuantizerError
from tests.codec.tokens import BITS, ROWS, SEEDS, Floats, row, tokens

NUMPY, TORCH = quantizer("uniform"), torch_quantizer("uniform")
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ],
    ),
]


def assert_same(a: Packed, b: Packed) -> None:
    assert (a.scheme, a.bits, a.tokens, a.dim) == (b.scheme, b.bits, b.tokens, b.dim)
    assert a.codes.tobytes() == b.codes.tobytes() and a.side.tobytes() == b.side.tobytes()


ON_DEVICE = {
    "uniform": (encode_on_device, decode_on_device, round_trip_on_device),
    "rotated": (encode_rotated, decode_rotated, round_trip_rotated),
}


def assert_all_same(x: Floats, bits: int, seed: int, scheme: str, device: str = "cpu") -> None:
    on_numpy, on_torch, tensor = quantizer(scheme), torch_quantizer(scheme), torch.from_numpy(x).to(device)
    encode, decode, round_trip = ON_DEVICE[scheme]
    try:
        expected = on_numpy.encode(x, bits, seed)
    except QuantizerError:  # rotated values may leave float32
        for refusing in (encode, round_trip, on_torch.encode, on_torch.round_trip):
            with pytest.raises(QuantizerError):
                refusing(tensor, bits, seed)
        return
    decoded = on_numpy.decode(expected).tobytes()
    assert_same(encode(tensor, bits, seed), expected)
    assert_same(on_torch.encode(tensor, bits, seed), expected)
    assert decode(expected, tensor.device).cpu().numpy().tobytes() == decoded
    assert on_torch.decode(expected, tensor.device).cpu().numpy().tobytes() == decoded
    assert on_torch.round_trip(tensor, bits, seed).cpu().numpy().tobytes() == decoded
    assert round_trip(tensor, bits, seed).cpu().numpy().tobytes() == decoded


@settings(deadline=None, max_examples=60)
@given(x=tokens(), bits=BITS, seed=SEEDS, scheme=st.sampled_from(list(ON_DEVICE)))
def test_same_bytes_and_floats_on_any_tokens(x: Floats, bits: int, seed: int, scheme: str) -> None:
    assert_all_same(x, bits, seed, scheme)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bits", range(1, 17))
def test_same_bytes_and_floats_at_every_width_over_several_chunks(bits: int, device: str) -> None:
    rng = np.random.default_rng(bits)
    x = np.array([row(ROWS[i % len(ROWS)], 129, rng) for i in range(403)]).astype(np.float32)
    assert_all_same(x, bits, bits, "uniform", device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bits", range(1, 17))
def test_rotated_tokens_are_the_same_at_every_width_and_block(bits: int, device: str) -> None:
    """384 = 3 x 128 in several parts; every row kind that rotated values can hold."""
    rng, kinds = np.random.default_rng(bits), [kind for kind in ROWS if kind not in ("huge", "constant")]
    for dim, count in ((384, 70), (256, 9), (40, 1), (34, 17), (33, 3)):
        x = np.array([row(kinds[i % len(kinds)], dim, rng) for i in range(count)]).astype(np.float32)
        assert_all_same(x, bits, bits, "rotated", device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(0, 5), (0, 8), (1, 1), (1, 2), (3, 1), (9, 7), (5, 6), (2, 64)])
def test_same_bytes_and_floats_at_small_and_odd_shapes(shape: tuple[int, int], device: str) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for bits in (1, 4, 9, 16):
        for scheme in ON_DEVICE:
            assert_all_same(x, bits, 1, scheme, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_read_as_float32(dtype: torch.dtype, device: str) -> None:
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)).to(dtype).to(device)
    packed = TORCH.encode(x, 6, 3)
    assert_same(packed, NUMPY.encode(x.float().cpu().numpy(), 6, 3))
    assert TORCH.decode(packed).dtype == TORCH.round_trip(x, 6, 3).dtype == torch.float32
    identity = torch_quantizer("identity")
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    sent = identity.encode(x, 8, 0)
    assert sent.bits == torch.finfo(wide).bits
    assert identity.decode(sent).equal(x.to(wide).cpu()) and identity.round_trip(x, 8, 0).equal(x.to(wide))


def test_strided_and_graph_tensors_are_encoded_and_left_alone() -> None:
    x = torch.randn(6, 10, requires_grad=True)
    y = (x * 2).T
    expected = NUMPY.encode(np.ascontiguousarray(y.detach().numpy()), 4, 0)
    assert_same(TORCH.encode(y, 4, 0), expected)
    assert_same(encode_on_device(y.detach(), 4, 0), expected)
    assert not TORCH.round_trip(y, 4, 0).requires_grad


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_are_refused_on_the_device_too(value: float) -> None:
    x = torch.zeros(3, 4)
    x[1, 2] = value
    for encode in (
        TORCH.encode,
        encode_on_device,
        TORCH.round_trip,
        encode_rotated,
        round_trip_rotated,
        torch_quantizer("rotated").encode,
        torch_quantizer("identity").encode,
    ):
        with pytest.raises(QuantizerError, match="token 1"):
            encode(x, 4, 0)


def test_a_float64_beyond_float32_is_refused() -> None:
    with pytest.raises(QuantizerError, match="finite"):
        TORCH.encode(torch.full((1, 2), 1e300, dtype=torch.float64), 4, 0)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (2, 0)])
def test_other_shapes_are_refused_on_the_device_too(shape: tuple[int, ...]) -> None:
    for encode in (TORCH.encode, encode_on_device, encode_rotated, round_trip_rotated):
        with pytest.raises(QuantizerError, match="n, d"):
            encode(torch.zeros(shape), 4, 0)


def test_decoded_tensors_can_be_written() -> None:
    packed = NUMPY.encode(np.ones((2, 3), np.float32), 4, 0)
    frozen = Packed("uniform", 4, 2, 3, np.frombuffer(packed.codes.tobytes(), np.uint8), packed.side)
    TORCH.decode(frozen).add_(1)
    decode_on_device(frozen, torch.device("cpu")).add_(1)
    rotated = Packed("rotated", 4, 2, 3, frozen.codes, frozen.side)
    decode_rotated(rotated, torch.device("cpu")).add_(1)
