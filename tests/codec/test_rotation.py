"""The rotated quantizer: an orthogonal rotation, unbiased, within uniform's bound, and small where outliers are."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.codec import bodies as codec
from sflam.codec import rotation
from sflam.codec.messages import StepFrame, TokenFrame
from sflam.codec.quantizer import Packed
from sflam.codec.quantizers import quantizer
from sflam.codec.torch_quantizers import torch_quantizer
from sflam.errors import QuantizerError, WireError
from sflam.sizes import codes_bytes
from tests.codec.boundary import boundary
from tests.codec.tokens import BITS, SEEDS, SMALLEST, Floats, grid_of, tokens

ROTATED, UNIFORM = quantizer("rotated"), quantizer("uniform")
DIMS = (1, 2, 3, 6, 8, 20, 32, 96, 384)


def round_trip(x: Floats, bits: int, seed: int = 0, scheme: str = "rotated") -> Floats:
    codec = quantizer(scheme)
    return codec.decode(codec.encode(x, bits, seed))


def normal(n: int, dim: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def heavy(n: int, dim: int, seed: int = 0) -> Floats:
    """Student's t with 2 degrees of freedom: every token has outliers."""
    return np.random.default_rng(seed).standard_t(2, (n, dim)).astype(np.float32)


def matrix(dim: int) -> npt.NDArray[np.float64]:
    """The rotation by its definition, float64 [d, d]: blocks of H[i, j] = (-1)^popcount(i & j), times the signs."""
    n = rotation.block_of(dim)
    hadamard = np.array([[(-1.0) ** (i & j).bit_count() for j in range(n)] for i in range(n)]) / np.sqrt(n)
    return np.kron(np.eye(dim // n), hadamard) * (rotation.signs(dim) if n > 1 else 1)


def rotated(x: Floats) -> Floats:
    out = np.empty_like(x)
    rotation.rotate(x, out)
    return out


def error(x: Floats, decoded: Floats) -> float:
    """Normalised mean squared error."""
    return float(((decoded.astype(np.float64) - x) ** 2).sum() / (x.astype(np.float64) ** 2).sum())


@pytest.mark.parametrize(
    ("dim", "block"), [(1, 1), (7, 1), (34, 2), (96, 32), (384, 128), (768, 256), (1024, 1024)]
)
def test_blocks_are_the_largest_power_of_two_that_divides(dim: int, block: int) -> None:
    assert rotation.block_of(dim) == block


@pytest.mark.parametrize("dim", DIMS)
def test_the_rotation_is_the_matrix_and_undone_exactly_to_rounding(dim: int) -> None:
    x, q = normal(5, dim), matrix(dim)
    assert np.allclose(q @ q.T, np.eye(dim), atol=1e-12)
    y = rotated(x)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    assert np.all(np.abs(y - x @ q.T) < 3e-7 * norm)
    rotation.rotate_back(y, y)  # in place
    assert np.all(np.abs(y - x) < 3e-7 * norm)


def test_the_signs_never_change_and_a_shorter_pattern_begins_a_longer() -> None:
    """They are part of the format: another pattern would decode to noise."""
    first = "".join("-+"[int(sign > 0)] for sign in rotation.signs(48))
    assert first == "---+-+++--+-++-++-+--++-+++--+++-++--+-+-+-+--++"
    assert np.array_equal(rotation.signs(100), rotation.signs(1000)[:100])
    assert abs(rotation.signs(4096).sum()) < 4 * 64 and set(rotation.signs(4096)) == {-1, 1}
    assert not rotation.signs(8).flags.writeable


@pytest.mark.parametrize("dim", [64, 128, 256, 384, 512, 768, 1024, 4096])
def test_what_a_token_has_in_common_is_spread_too(dim: int) -> None:
    """A mean, an alternation, a ramp, a slow wave and a single outlier: no coefficient above 4.5 r.m.s."""
    column = np.arange(dim)
    rows = [np.ones(dim), 1.0 - 2 * (column % 2), column / dim, np.cos(column / dim * 7), column == 3]
    y = rotated(np.array(rows).astype(np.float32))
    block = np.abs(y.reshape(len(rows), -1, rotation.block_of(dim)))
    rms = np.sqrt((block**2).mean(axis=2, keepdims=True))
    assert np.all(block <= 4.5 * rms)


@pytest.mark.parametrize("dim", [1, 7, 33])
def test_an_odd_width_is_plain_uniform(dim: int) -> None:
    x = normal(9, dim)
    ours, theirs = ROTATED.encode(x, 5, 3), UNIFORM.encode(x, 5, 3)
    assert np.array_equal(ours.codes, theirs.codes) and np.array_equal(ours.side, theirs.side)
    assert np.array_equal(ROTATED.decode(ours), UNIFORM.decode(theirs))


def test_the_tokens_that_travel_are_the_rotated_ones() -> None:
    x = normal(6, 96)
    ours, theirs = ROTATED.encode(x, 5, 3), UNIFORM.encode(rotated(x), 5, 3)
    assert np.array_equal(ours.codes, theirs.codes) and np.array_equal(ours.side, theirs.side)


@settings(deadline=None, max_examples=40)
@given(x=tokens(), bits=BITS, seed=SEEDS)
def test_every_token_decodes_within_the_steps_of_its_grid(x: Floats, bits: int, seed: int) -> None:
    x *= np.float32(1e-5)  # room for the rotation of the hugest
    packed = ROTATED.encode(x, bits, seed)
    assert packed.nbytes == ROTATED.nbytes(*x.shape, bits) == UNIFORM.nbytes(*x.shape, bits)
    step = grid_of(packed)[1]
    decoded = ROTATED.decode(packed)
    assert decoded.dtype == np.float32 and decoded.shape == x.shape and np.isfinite(decoded).all()
    exact = x.astype(np.float64)
    moved = np.sqrt(((decoded - exact) ** 2).sum(axis=1))
    rounding = 1e-6 * np.sqrt((exact**2).sum(axis=1)) + 100 * x.shape[1] * SMALLEST
    assert np.all(moved <= np.sqrt(x.shape[1]) * step[:, 0] * 1.02 + rounding)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_rounding_is_unbiased_and_its_variance_within_the_bound(bits: int) -> None:
    """In the original space: mean error 0 within 5 deviations; E|e|^2 <= d step^2 / 4 with the encoded step."""
    x, seeds = heavy(5, 24), 1500
    x[0] *= 1e-39  # subnormal
    x[1] += 3
    step = grid_of(ROTATED.encode(x, bits, 0))[1]
    errors = np.stack([round_trip(x, bits, seed).astype(np.float64) - x for seed in range(seeds)]) / step
    sigma = 0.5 / np.sqrt(seeds)  # an orthogonal mixture of independent errors of step / 2 at most
    assert np.all(np.abs(errors.mean(axis=0)) < 5 * sigma)
    assert abs(errors.mean()) < 5 * sigma / np.sqrt(x.size)
    squared = (errors**2).sum(axis=2).mean(axis=0)
    assert np.all(squared < 24 / 4) and np.all(squared > 0.3 * 24 / 4)


def test_outliers_cost_far_less_than_uniform_at_equal_bytes() -> None:
    for dim, gain in ((96, 2.5), (384, 5), (768, 10)):
        x = heavy(64, dim)
        for bits in (2, 4, 8):
            ours, theirs = (error(x, round_trip(x, bits, 1, name)) for name in ("rotated", "uniform"))
            assert ours * gain < theirs
    spike = normal(16, 256) * 1e-3
    spike[:, 7] = 1
    assert error(spike, round_trip(spike, 4)) * 10 < error(spike, round_trip(spike, 4, 0, "uniform"))


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_gaussian_tokens_cost_no_more_than_uniform_within_a_few_percent(bits: int) -> None:
    x = normal(400, 384)
    ours, theirs = (error(x, round_trip(x, bits, 1, name)) for name in ("rotated", "uniform"))
    assert 0.95 < ours / theirs < 1.05


@pytest.mark.parametrize("bits", range(1, 17))
def test_zeros_are_exact_and_signed_zeros_are_one(bits: int) -> None:
    x = np.zeros((3, 24), np.float32)
    packed = ROTATED.encode(-x, bits, 1)
    assert packed.codes.tobytes() == ROTATED.encode(x, bits, 1).codes.tobytes()
    assert packed.side.tobytes() == ROTATED.encode(x, bits, 1).side.tobytes()
    assert not ROTATED.decode(packed).any()


def test_rotating_subnormal_values_there_and_back_moves_them_by_few_of_the_smallest() -> None:
    x = (np.random.default_rng(0).integers(-9000, 9000, (4, 64)) * SMALLEST).astype(np.float32)
    y = rotated(x)
    rotation.rotate_back(y, y)
    assert np.abs(y - x).max() <= 64 * SMALLEST


def test_tokens_are_encoded_alike_whatever_part_they_fall_into(monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal(90, 48)
    for bits in (1, 3, 4, 11, 16):
        whole, decoded = ROTATED.encode(x, bits, 9), round_trip(x, bits, 9)
        with monkeypatch.context() as patch:
            patch.setattr("sflam.codec.uniform.CHUNK", 300)  # 8 rows at a time, the last chunk ragged
            patch.setattr(rotation, "TOGETHER", 2)
            patch.setattr(rotation, "WORK", 200)
            parts = ROTATED.encode(x, bits, 9)
            assert np.array_equal(parts.codes, whole.codes) and np.array_equal(parts.side, whole.side)
            assert np.array_equal(ROTATED.decode(whole), decoded)


@pytest.mark.parametrize("bits", [1, 5])
def test_a_large_input_needs_little_memory_beyond_the_output(bits: int) -> None:
    x = normal(32 * 197, 768)
    tracemalloc.start()
    packed = ROTATED.encode(x, bits, 0)
    encoding = tracemalloc.get_traced_memory()[1] - packed.nbytes
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    decoded = ROTATED.decode(packed)
    decoding = tracemalloc.get_traced_memory()[1] - before - decoded.nbytes
    tracemalloc.stop()
    assert encoding < 3e6 and decoding < 1e6


def test_views_of_any_stride_are_accepted_and_left_alone() -> None:
    x = normal(20, 30)
    before = x.copy()
    for view in (x[::2, ::3], x.T, x[::-1]):
        plain = ROTATED.encode(np.ascontiguousarray(view), 5, 3)
        assert np.array_equal(ROTATED.encode(view, 5, 3).codes, plain.codes)
    x.flags.writeable = False
    ROTATED.encode(x, 5, 3)
    assert np.array_equal(x, before)


@pytest.mark.parametrize("dim", [7, 8])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_are_refused_by_token(value: float, dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sflam.codec.uniform.CHUNK", 8)  # tokens are numbered through all parts
    monkeypatch.setattr(rotation, "TOGETHER", 1)
    x = normal(30, dim)
    x[22, 4] = value
    with pytest.raises(QuantizerError, match="token 22"):
        ROTATED.encode(x, 4, 0)


@pytest.mark.parametrize("value", [1e38, 1e36, 3e35])
def test_what_could_not_be_rotated_back_within_float32_is_refused(value: float) -> None:
    x = normal(3, 256)
    x[2] = np.float32(value) * rotation.signs(256)  # the worst case: all in one coefficient
    for encode in (
        ROTATED.encode,
        lambda *a: torch_quantizer("rotated").encode(torch.from_numpy(a[0]), *a[1:]),
    ):
        with pytest.raises(QuantizerError, match="token 2"):
            encode(x, 4, 0)
    x[2] *= np.float32(0.9 * 1e38 / 256**1.5 / value)
    assert np.isfinite(round_trip(x, 1)).all()


def test_other_types_shapes_widths_and_seeds_are_refused() -> None:
    with pytest.raises(QuantizerError, match="float64"):
        ROTATED.encode(np.zeros((2, 4)), 4, 0)  # type: ignore[arg-type]
    for shape in ((3,), (2, 3, 4), (2, 0)):
        with pytest.raises(QuantizerError, match="n, d"):
            ROTATED.encode(np.zeros(shape, np.float32), 4, 0)
    for bits in (0, 17):
        with pytest.raises(QuantizerError, match="between 1 and 16"):
            ROTATED.encode(normal(2, 4), bits, 0)
    with pytest.raises(QuantizerError, match="seed"):
        ROTATED.encode(normal(2, 4), 4, -1)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), bits=BITS, count=st.integers(0, 6), dim=st.integers(1, 17))
def test_any_bytes_decode_or_are_refused(data: st.DataObject, bits: int, count: int, dim: int) -> None:
    """And the wire refuses exactly what decoding would."""
    size = codes_bytes(count, dim, bits)
    codes = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), np.uint8)
    side = np.frombuffer(data.draw(st.binary(min_size=4 * count, max_size=4 * count)), np.uint16).reshape(
        -1, 2
    )
    packed = Packed("rotated", bits, count, dim, codes, side)
    body = codec.encode(TokenFrame(0, 0, 0, packed))
    try:
        decoded = ROTATED.decode(packed)
    except QuantizerError:
        with pytest.raises(WireError):
            codec.decode(body)
        return
    assert np.isfinite(decoded).all()
    codec.decode(body)


def test_a_step_crosses_the_wire() -> None:
    packed = ROTATED.encode(normal(6, 96), 4, 0)
    body = codec.encode(StepFrame(1, 2, 3, packed, rows=2, lengths=None, labels=None))
    frame = codec.decode(body)
    assert isinstance(frame, StepFrame) and frame.activations.scheme == "rotated"
    assert np.array_equal(ROTATED.decode(frame.activations), ROTATED.decode(packed))
    as_uniform = replace(packed, scheme="uniform")  # another scheme's tokens are not what was sent
    assert not np.allclose(UNIFORM.decode(as_uniform), ROTATED.decode(packed), atol=0.5)


def test_the_boundarys_gradient_is_unbiased() -> None:
    """Averaged over seeds, activations and gradients are those of the uncut graph."""
    x, weight, seeds = (
        torch.from_numpy(normal(15, 16)).view(3, 5, 16).requires_grad_(),
        torch.linspace(-1, 1, 16),
        400,
    )
    codec = torch_quantizer("rotated")
    outs, grads = [], []
    for seed in range(seeds):
        out = boundary(x, codec, 3, 3, seed, seed + seeds)
        outs.append(out.detach())
        grads.append(torch.autograd.grad((out * weight).sum(), x)[0])
    for found, exact in ((outs, x.detach()), (grads, weight.expand(3, 5, 16))):
        step = grid_of(codec.encode(exact.reshape(-1, 16), 3, 0))[1].reshape(3, 5, 1)
        assert np.all(np.abs((torch.stack(found).mean(0) - exact).numpy()) < 5 * step / 2 / seeds**0.5)
