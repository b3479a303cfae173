"""The uniform quantizer: unbiased, variance within the bound, inside the grid, exact where it can be."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.codec import uniform
from sflam.codec.quantizer import Packed
from sflam.codec.quantizers import quantizer
from sflam.errors import QuantizerError
from sflam.sizes import codes_bytes
from tests.codec.tokens import BITS, SEEDS, Floats, grid_of, tokens

UNIFORM = quantizer("uniform")


def round_trip(x: Floats, bits: int, seed: int = 0) -> Floats:
    return UNIFORM.decode(UNIFORM.encode(x, bits, seed))


def normal(n: int, dim: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(x=tokens(), bits=BITS, seed=SEEDS)
def test_every_value_decodes_to_a_neighbouring_level(x: Floats, bits: int, seed: int) -> None:
    packed = UNIFORM.encode(x, bits, seed)
    offset, step = grid_of(packed)
    decoded = UNIFORM.decode(packed)
    assert decoded.dtype == np.float32 and decoded.shape == x.shape
    exact = x.astype(np.float64)
    assert np.all(exact >= offset) and np.all(
        exact <= (offset + (2**bits - 1) * step) * (1 + 1e-15 * np.sign(exact))
    )
    rounding = np.spacing(np.abs(decoded)) + step * 2.0**-7  # of decoding, and of the position in the grid
    assert np.all(np.abs(decoded - exact) <= step + rounding)


@settings(deadline=None, max_examples=60)
@given(x=tokens(), bits=BITS, seed=SEEDS)
def test_sizes_are_exact_and_known_before_encoding(x: Floats, bits: int, seed: int) -> None:
    packed = UNIFORM.encode(x, bits, seed)
    assert packed.nbytes == UNIFORM.nbytes(*x.shape, bits)
    assert packed.codes.size == codes_bytes(*x.shape, bits) == -(-x.size * bits // 8)  # really packed
    assert packed.side.nbytes == 4 * len(x)


@settings(deadline=None, max_examples=40)
@given(x=tokens(), bits=BITS, seed=SEEDS)
def test_tokens_on_levels_of_their_grid_come_back_exactly(x: Floats, bits: int, seed: int) -> None:
    packed = UNIFORM.encode(x, bits, seed)
    offset, step = grid_of(packed)
    levels = np.random.default_rng(0).integers(0, 2**bits, x.shape)
    levels[:, :1] = 0
    on_grid = (offset + levels * step).astype(np.float32)
    representable = np.all(on_grid == offset + levels * step, axis=1)
    again = UNIFORM.encode(on_grid[representable], bits, seed + 1)
    exact = np.all(grid_of(again)[1] == step[representable], axis=1)  # else a smaller step fitted
    assert np.array_equal(UNIFORM.decode(again)[exact], on_grid[representable][exact])


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8, 12])
def test_rounding_is_unbiased_and_its_variance_within_the_bound(bits: int) -> None:
    """Mean error 0 within 5 standard deviations; E|e|^2 <= d step^2 / 4 per token with the encoded step."""
    x, seeds = normal(6, 32), 1500
    x[0] *= 1e-39  # subnormal
    x[1] += 3
    step = grid_of(UNIFORM.encode(x, bits, 0))[1]
    errors = np.stack([round_trip(x, bits, seed).astype(np.float64) - x for seed in range(seeds)]) / step
    sigma = 0.5 / np.sqrt(seeds)  # a rounding error has standard deviation step / 2 at most
    assert np.all(np.abs(errors.mean(axis=0)) < 5 * sigma)
    assert abs(errors.mean()) < 5 * sigma / np.sqrt(x.size)
    bound = 32 / 4
    squared = (errors**2).sum(axis=2).mean(axis=0)
    assert np.all(squared < bound)
    assert np.all(squared > 0.3 * bound)  # the bound says something: 2/3 of it for evenly spread values


@pytest.mark.parametrize("value", [0.3, -0.3, 1e-40, -1e-45, 123456.7])
def test_a_constant_token_that_bfloat16_cannot_hold_is_unbiased_too(value: float) -> None:
    x = np.full((1, 4000), value, np.float32)
    step = grid_of(UNIFORM.encode(x, 4, 0))[1].item()
    assert step > 0
    mean = np.mean([round_trip(x, 4, seed).astype(np.float64).mean() for seed in range(20)])
    assert abs(mean - float(x[0, 0])) < 5 * step / 2 / np.sqrt(80_000)


def test_the_probability_of_rounding_up_is_exact_to_a_draw() -> None:
    """Over all 2^16 draws a value at m + f rounds up f 2^16 times: no bias, not even a small one."""
    fractions = np.array([0, 1, 2, 1000, 32768, 65535], np.float64) / 65536
    dim = 1 << 14
    x = np.tile(np.append(fractions, 3.0), (1, dim)).astype(np.float32)  # on [0, 3]: step 1 with 2 bits
    shares = np.mean([round_trip(x, 2, s).reshape(dim, -1)[:, :-1].mean(axis=0) for s in range(32)], axis=0)
    sigma = np.sqrt(fractions * (1 - fractions) / (32 * dim))
    assert np.all(np.abs(shares - fractions) <= 5 * sigma)
    assert shares[0] == 0


@pytest.mark.parametrize("bits", range(1, 17))
def test_zeros_bfloat16_constants_and_integers_are_exact(bits: int) -> None:
    levels = np.arange(2 ** min(bits, 8), dtype=np.float32)
    top = np.float32(2**bits - 1)
    rows = [
        np.zeros(256),
        np.full(256, -1.5),
        np.full(256, 2.0**120),
        np.append(np.resize(levels, 255), top) - 8,
    ]
    x = np.array(rows, np.float32)
    for seed in range(3):
        assert np.array_equal(round_trip(x, bits, seed), x)


def test_signed_zeros_are_one_zero() -> None:
    plus, minus = np.zeros((3, 5), np.float32), np.full((3, 5), -0.0, np.float32)
    mixed = np.where(np.arange(15).reshape(3, 5) % 2, plus, minus)
    first = UNIFORM.encode(plus, 4, 0)
    for x in (minus, mixed):
        packed = UNIFORM.encode(x, 4, 0)
        assert np.array_equal(packed.side, first.side) and np.array_equal(packed.codes, first.codes)
    assert not np.signbit(round_trip(minus, 4)).any()


def test_the_scale_is_per_token_so_one_outlier_harms_no_other() -> None:
    x = normal(8, 64)
    alone = round_trip(x[1:], 4)
    x[0] *= 1e6
    together = round_trip(x, 4)
    steps = grid_of(UNIFORM.encode(x, 4, 0))[1]
    assert steps[0] > 1e5 and np.all(steps[1:] < 1)
    assert np.all(np.abs(together[1:] - x[1:]) <= steps[1:]) and np.all(np.abs(alone - x[1:]) <= steps[1:])


def test_rounding_is_stochastic_and_repeats_for_one_seed() -> None:
    x = normal(4, 64)
    first, same, other = (UNIFORM.encode(x, 4, seed).codes for seed in (1, 1, 2))
    assert np.array_equal(first, same) and not np.array_equal(first, other)


def test_tokens_are_encoded_alike_whatever_chunk_they_fall_into(monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal(50, 33)
    for bits in (1, 3, 4, 11, 16):
        whole = UNIFORM.encode(x, bits, 9)
        with monkeypatch.context() as patch:
            patch.setattr(uniform, "CHUNK", 300)  # 8 rows at a time, the last chunk ragged
            parts = UNIFORM.encode(x, bits, 9)
            assert np.array_equal(parts.codes, whole.codes) and np.array_equal(parts.side, whole.side)
            assert np.array_equal(UNIFORM.decode(whole), round_trip(x, bits, 9))


@pytest.mark.parametrize("bits", [1, 4, 5, 16])
def test_a_large_input_needs_little_memory_beyond_the_output(bits: int) -> None:
    x = normal(32 * 197, 768)
    tracemalloc.start()
    packed = UNIFORM.encode(x, bits, 0)
    encoding = tracemalloc.get_traced_memory()[1] - packed.nbytes
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    decoded = UNIFORM.decode(packed)
    decoding = tracemalloc.get_traced_memory()[1] - before - decoded.nbytes
    tracemalloc.stop()
    assert encoding < 1e6 and decoding < 1e6


def test_views_of_any_stride_are_accepted_and_left_alone() -> None:
    x = normal(20, 30)
    before = x.copy()
    for view in (x[::2, ::3], x.T, x[::-1]):
        plain = UNIFORM.encode(np.ascontiguousarray(view), 5, 3)
        assert np.array_equal(UNIFORM.encode(view, 5, 3).codes, plain.codes)
    x.flags.writeable = False
    UNIFORM.encode(x, 5, 3)
    assert np.array_equal(x, before)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_are_refused(value: float) -> None:
    x = normal(3, 7)
    x[2, 4] = value
    with pytest.raises(QuantizerError, match="token 2"):
        UNIFORM.encode(x, 4, 0)


@pytest.mark.parametrize(("bits", "message"), [(0, "between 1 and 16"), (17, "between 1 and 16")])
def test_widths_out_of_range_are_refused(bits: int, message: str) -> None:
    with pytest.raises(QuantizerError, match=message):
        UNIFORM.encode(normal(2, 3), bits, 0)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (2, 0)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(QuantizerError, match="n, d"):
        UNIFORM.encode(np.zeros(shape, np.float32), 4, 0)


def test_other_types_are_refused() -> None:
    with pytest.raises(QuantizerError, match="float64"):
        UNIFORM.encode(np.zeros((2, 3)), 4, 0)  # type: ignore[arg-type]


def test_packed_arrays_of_the_wrong_size_or_type_are_refused() -> None:
    good = UNIFORM.encode(normal(4, 10), 4, 0)
    for codes, side in (
        (good.codes[:-1], good.side),
        (good.codes.view(np.int8), good.side),
        (good.codes, good.side[1:]),
        (good.codes, good.side.reshape(-1)),
        (good.codes, good.side.astype(np.int32)),
    ):
        with pytest.raises(QuantizerError, match="expected"):
            Packed("uniform", 4, 4, 10, codes, side)  # type: ignore[arg-type]
    for bits, count, dim in ((0, 4, 10), (17, 4, 10), (4, -1, 10), (4, 4, 0)):
        with pytest.raises(QuantizerError):
            Packed("uniform", bits, count, dim, good.codes, good.side)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), bits=BITS, count=st.integers(0, 6), dim=st.integers(1, 9))
def test_any_bytes_decode_or_are_refused(data: st.DataObject, bits: int, count: int, dim: int) -> None:
    size = codes_bytes(count, dim, bits)
    codes = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), np.uint8)
    side = np.frombuffer(data.draw(st.binary(min_size=4 * count, max_size=4 * count)), np.uint16).reshape(
        -1, 2
    )
    try:
        decoded = UNIFORM.decode(Packed("uniform", bits, count, dim, codes, side))
    except QuantizerError:
        return
    assert np.isfinite(decoded).all()
