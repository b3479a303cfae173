"""Top-k: what is kept and how well, a bound that is never exceeded and is reached, memory that makes up for losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sflam import sizes
from sflam.codec import bodies
from sflam.codec.messages import TokenFrame
from sflam.codec.quantizer import Floats, Packed, Remembering, VariableSize
from sflam.codec.quantizers import quantizer
from sflam.codec.topk import TopK
from sflam.codec.torch_quantizers import torch_quantizer
from sflam.errors import NotFiniteError, QuantizerError, WireError
from tests.codec.tokens import BITS, SEEDS, tokens

TOPK = TopK()
SMALL = settings(deadline=None, max_examples=80)


def kept_of(x: Floats, bits: int) -> int:
    return sizes.topk_kept(x.shape[1], bits)


@SMALL
@given(x=tokens(), bits=BITS, seed=SEEDS)
def test_what_is_kept_is_the_largest_to_one_level(x: Floats, bits: int, seed: int) -> None:
    try:
        packed = TOPK.encode(x, bits, seed)
    except NotFiniteError:
        assert (np.abs(x).max(axis=1) > 3.38e38).any()  # rounded up, it is beyond bfloat16
        return
    found, most = TOPK.decode(packed), kept_of(x, bits)
    assert found.shape == x.shape and ((found != 0).sum(1) <= most).all()
    for row, (given_, got) in enumerate(zip(x.astype(np.float64), found.astype(np.float64), strict=True)):
        order = np.argsort(-np.abs(given_), kind="stable")
        scale = np.array([int(packed.side[row, 0]) << 16], np.uint32).view(np.float32)[0]
        step = float(scale / np.float32(127)) * (1 + 1e-6) + 1e-44 * 127
        assert np.abs(given_[order[:most]] - got[order[:most]]).max() <= step
        assert (got[order[most:]] == 0).all()


@SMALL
@given(x=tokens(), bits=BITS, seed=SEEDS)
def test_the_bound_is_never_exceeded(x: Floats, bits: int, seed: int) -> None:
    assume(np.abs(x).max(initial=0) < 3e38)
    packed = TOPK.encode(x, bits, seed)
    bound = TOPK.bound_bytes(*x.shape, bits)
    assert packed.nbytes <= bound == sizes.payload_bytes(*x.shape, bits, "topk")
    assert packed.payload_bits == 8 * packed.nbytes <= sizes.payload_bits(*x.shape, bits, "topk")
    assert packed.nbytes == 4 * len(x) + _codes(int(packed.side[:, 1].sum()), x.shape[1])


@SMALL
@given(n=st.integers(1, 9), dim=st.integers(1, 400), bits=BITS, seed=SEEDS)
def test_the_bound_is_reached_by_values_of_one_magnitude(n: int, dim: int, bits: int, seed: int) -> None:
    signs = np.random.default_rng(seed % 997).choice(np.array([-1.0, 1.0], np.float32), (n, dim))
    packed = TOPK.encode(signs, bits, seed)
    assert packed.nbytes == TOPK.bound_bytes(n, dim, bits)
    found = TOPK.decode(packed)
    first = sizes.topk_kept(dim, bits)  # of equal magnitudes the first are kept
    assert np.abs(found[:, :first] - signs[:, :first]).max() < 1e-6 and (found[:, first:] == 0).all()


@pytest.mark.parametrize("dim", [32, 64, 192, 384, 768, 4096])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_bound_is_within_that_of_uniform_and_close_to_it(dim: int, bits: int) -> None:
    bound, uniform = sizes.payload_bits(100, dim, bits, "topk"), sizes.payload_bits(100, dim, bits)
    assert bound <= uniform
    one = 100 * (sizes.index_bits(dim) + 8)
    assert sizes.topk_kept(dim, bits) == dim or uniform - bound < one + 8


def test_messages_without_values_are_small() -> None:
    x = np.zeros((5, 32), np.float32)
    packed = TOPK.encode(x, 8, 0)
    assert packed.codes.size == 0 and packed.nbytes == 20 < TOPK.bound_bytes(5, 32, 8)
    assert (TOPK.decode(packed) == 0).all()
    assert TOPK.encode(np.zeros((0, 32), np.float32), 8, 0).nbytes == 0


def test_rounding_of_what_is_kept_is_unbiased() -> None:
    x = np.array([[1.0, 0.3141, -0.2718, 0.0035]], np.float32)
    mean = np.mean([TOPK.decode(TOPK.encode(x, 16, seed)) for seed in range(4000)], axis=0)
    assert np.abs(mean - x).max() < 4 * (1 / 127) / 2 / np.sqrt(4000)


@SMALL
@given(sizes_=st.lists(st.integers(0, 6), min_size=1, max_size=12), bits=st.integers(1, 4), seed=SEEDS)
def test_what_was_sent_adds_up_to_what_was_meant_but_for_the_last_remainder(
    sizes_: list[int], bits: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    left, meant, sent = None, np.zeros(24), np.zeros(24)
    for step, n in enumerate(sizes_):
        x = rng.standard_normal((n, 24)).astype(np.float32)
        packed, left = TOPK.encode_after(left, x, bits, seed ^ step)
        if n:
            meant += x.mean(0, dtype=np.float64)
            sent += TOPK.decode(packed).mean(0, dtype=np.float64)
    assert left is not None and left.dtype == np.float32 and left.shape == (24,)
    assert np.abs(sent + left - meant).max() < 1e-5 * (1 + np.abs(meant).max()) * len(sizes_)


def test_memory_sends_small_gradients_in_the_end_and_without_it_they_are_lost() -> None:
    x = np.array([[1.0, 0.1] + [0.0] * 14], np.float32)
    left, with_memory, without = None, np.zeros(16), np.zeros(16)
    for step in range(60):
        packed, left = TOPK.encode_after(left, x, 1, step)  # one value of sixteen
        with_memory += TOPK.decode(packed)[0]
        without += TOPK.decode(TOPK.encode(x, 1, step))[0]
    assert without[1] == 0 and abs(with_memory[1] / 60 - 0.1) < 0.03 and abs(with_memory[0] / 60 - 1) < 0.03


@SMALL
@given(x=tokens(), bits=BITS, seed=SEEDS)
def test_torch_and_numpy_write_the_same_bytes_and_remember_the_same(x: Floats, bits: int, seed: int) -> None:
    assume(np.abs(x).max(initial=0) < 1e38)
    there = torch_quantizer("topk")
    left = np.full(x.shape[1], 0.25, np.float32)
    ours, kept = TOPK.encode_after(left, x, bits, seed)
    theirs, remembered = there.encode_after(left, torch.from_numpy(x), bits, seed)
    assert ours.codes.tobytes() == theirs.codes.tobytes() and ours.side.tobytes() == theirs.side.tobytes()
    assert kept.tobytes() == remembered.tobytes()
    assert there.decode(theirs).numpy().tobytes() == TOPK.decode(ours).tobytes()
    assert there.remembers and not torch_quantizer("uniform").remembers


@SMALL
@given(x=tokens(), bits=BITS, seed=SEEDS)
def test_a_body_carries_it_and_says_its_size(x: Floats, bits: int, seed: int) -> None:
    assume(np.abs(x).max(initial=0) < 3e38)
    packed = TOPK.encode(x, bits, seed)
    body = bodies.encode(TokenFrame(1, 2, 3, packed))
    assert len(body) == sizes.HEADER_BYTES + packed.nbytes <= sizes.token_body_bytes(*x.shape, bits, "topk")
    again = bodies.decode(body)
    assert isinstance(again, TokenFrame) and bodies.encode(again) == body
    assert TOPK.decode(again.tokens).tobytes() == TOPK.decode(packed).tobytes()


def _codes(values: int, dim: int) -> int:
    return -(-values * sizes.index_bits(dim) // 8) + values


def _packed(codes: list[int], counts: list[int], scale: int = 0x3F80, dim: int = 8, bits: int = 16) -> Packed:
    side = np.array([[scale, count] for count in counts], np.uint16)
    return Packed("topk", bits, len(counts), dim, np.array(codes, np.uint8), side)


GOOD = ([0b001_000, 200, 100], [2])  # indices 0 and 1, three bits each


@pytest.mark.parametrize(
    ("codes", "counts", "scale"),
    [
        ([0b000_001, 200, 100], [2], 0x3F80),  # descending
        ([0b001_001, 200, 100], [2], 0x3F80),  # twice the same
        ([0b1100_1000, 200, 100], [2], 0x3F80),  # spare bits
        ([0b001_000, 128, 100], [2], 0x3F80),  # a level of 0
        ([0b001_000, 0, 100], [2], 0x3F80),  # a level of -128
        ([0b001_000, 200], [2], 0x3F80),  # a value too few
        ([0b001_000, 200, 100], [1], 0x3F80),  # a value too many
        ([0b001_000, 200, 100], [2], 0x7F80),  # infinity
        ([0b001_000, 200, 100], [2], 0xBF80),  # negative
    ],
)
def test_what_no_encoder_writes_is_refused(codes: list[int], counts: list[int], scale: int) -> None:
    TOPK.check_side(_packed(*GOOD))
    wrong = _packed(codes, counts, scale)
    for refuse in (TOPK.check_side, TOPK.decode):
        with pytest.raises(QuantizerError):
            refuse(wrong)
    with pytest.raises(WireError):
        bodies.decode(bodies.encode(TokenFrame(0, 0, 0, wrong)))


def test_an_index_beyond_the_token_and_more_codes_than_the_bound_are_refused() -> None:
    with pytest.raises(QuantizerError, match="below its size"):
        TOPK.check_side(_packed([0b111, 200], [1], dim=7))
    with pytest.raises(QuantizerError, match=r"codes is uint8 \[40\]; expected uint8 \[11\]"):
        _packed([0] * 40, [1])
    body = bytearray(bodies.encode(TokenFrame(0, 0, 0, _packed(*GOOD))))
    grown = bytes(body).replace(b'"shape":[3]', b'"shape":[9]') + bytes(6)
    with pytest.raises(WireError):
        bodies.decode(grown)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3.4e38])
def test_what_is_not_finite_is_refused(value: float) -> None:
    x = np.zeros((3, 4), np.float32)
    x[1, 2] = value
    with pytest.raises(NotFiniteError, match="token 1 reaches"):
        TOPK.encode(x, 8, 0)


def test_it_is_of_both_kinds() -> None:
    for name in ("uniform", "rotated", "identity"):
        assert not isinstance(quantizer(name), VariableSize | Remembering)
    assert isinstance(quantizer("topk"), VariableSize) and isinstance(quantizer("topk"), Remembering)
