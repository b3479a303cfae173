"""The dither: the documented formula, uniform, and unrelated between seeds, tokens and columns."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.codec import noise, torch_noise
from sflam.errors import QuantizerError

MASK = 0xFFFFFFFF


def draws(seed: int, tokens: int, dim: int) -> npt.NDArray[np.uint16]:
    return noise.draws(noise.token_keys(seed, tokens), noise.columns(dim))[:, :dim]


def mix(x: int) -> int:
    x = (x ^ x >> 16) * 0x7FEB352D & MASK
    x = (x ^ x >> 15) * 0x846CA68B & MASK
    return x ^ x >> 16


def definition(seed: int, token: int, column: int) -> int:
    """The draw by the formula of the module's docstring, in Python integers."""
    z = (seed + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    z ^= z >> 31
    key = mix(mix(token ^ z & MASK) ^ z >> 32)
    word = mix(key ^ column // 2 * 0x9E3779B9 & MASK)
    return word >> 16 if column % 2 else word & 0xFFFF


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**64 - 1), tokens=st.integers(0, 5), dim=st.integers(1, 9))
def test_draws_follow_the_documented_formula(seed: int, tokens: int, dim: int) -> None:
    expected = [[definition(seed, token, column) for column in range(dim)] for token in range(tokens)]
    assert draws(seed, tokens, dim).tolist() == expected
    on_torch = torch_noise.draws(seed, tokens, dim, torch.device("cpu"))
    assert on_torch.tolist() == expected


def test_draws_are_pinned() -> None:
    assert definition(0, 0, 0) == draws(0, 1, 1)[0, 0]
    assert draws(1, 2, 3).tolist() == [[definition(1, t, c) for c in range(3)] for t in range(2)]


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_draws_are_uniform(seed: int) -> None:
    sample = draws(seed, 512, 2048).reshape(-1)
    for shift in (0, 8):  # both bytes of a draw; 255 degrees of freedom have standard deviation 22.6
        counts = np.bincount(sample >> shift & 255, minlength=256)
        expected = sample.size / 256
        assert abs(((counts - expected) ** 2 / expected).sum() - 255) < 5 * 22.6
    low, high = sample[0::2], sample[1::2]
    for half in (low, high):
        assert abs(half.mean() - 32767.5) < 5 * 18918 / np.sqrt(half.size)
    assert len(np.unique(sample)) > 0.999 * 65536


def correlation(a: npt.NDArray[np.uint16], b: npt.NDArray[np.uint16]) -> float:
    return float(np.corrcoef(a.reshape(-1).astype(np.float64), b.reshape(-1).astype(np.float64))[0, 1])


@pytest.mark.parametrize("other", [1, 2, 3, 1 << 16, 1 << 31, 1 << 32, 1 << 40, 1 << 62])
def test_seeds_that_differ_in_few_bits_give_unrelated_draws(other: int) -> None:
    a, b = draws(0, 256, 512), draws(other, 256, 512)
    assert abs(correlation(a, b)) < 5 / np.sqrt(a.size)
    assert abs((a == b).mean() * 65536 - 1) < 5 * 256 / np.sqrt(a.size)  # equal as often as chance
    assert set(map(tuple, a[:, :8].tolist())).isdisjoint(
        map(tuple, b[:, :8].tolist())
    )  # no token's draws again


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 16, 256])
def test_neighbouring_columns_and_tokens_are_unrelated(lag: int) -> None:
    a = draws(7, 512, 1024)
    assert abs(correlation(a[:, lag:], a[:, :-lag])) < 5 / np.sqrt(a.size)
    assert abs(correlation(a[lag:], a[:-lag])) < 5 / np.sqrt(a.size)


def test_every_seed_bit_flips_half_of_the_draws_bits() -> None:
    base = draws(12345, 64, 64).view(np.uint32)
    for bit in range(64):
        flipped = draws(12345 ^ 1 << bit, 64, 64).view(np.uint32) ^ base
        share = np.unpackbits(flipped.view(np.uint8)).mean()
        assert abs(share - 0.5) < 5 * 0.5 / np.sqrt(flipped.size * 32)


def test_a_tokens_draws_do_not_depend_on_the_others() -> None:
    assert np.array_equal(draws(5, 100, 33)[:10], draws(5, 10, 33))
    assert np.array_equal(draws(5, 4, 100)[:, :33], draws(5, 4, 33))


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(QuantizerError, match="seed"):
        noise.token_keys(seed, 1)
