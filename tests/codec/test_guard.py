"""Clipping and noise of what leaves a device: norms, draws, and that nothing depends on how tokens are divided."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from sflam.codec.guard import FARTHEST, guard_of, normal
from sflam.codec.legs import ADAPTERS, DOWN, HEAD_UP, UP
from sflam.codec.torch_guard import guarded
from sflam.errors import NotFiniteError
from sflam.learn.adapter_exchange import AdapterCodec
from sflam.learn.exchange import Exchange, Position
from sflam.link.exchange import NumpyCoder, TokenExchange
from sflam.privacy.settings import PrivacySettings

NOISY = PrivacySettings(clip=2.0, noise=0.5, clip_gradients=0.1, adapters="user", noise_adapters=0.3)


def tokens(n: int, d: int, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(n * d).normal(size=(n, d))).astype(np.float32)


@given(st.integers(1, 20), st.integers(1, 130), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_no_norm_is_beyond_the_clip_and_shorter_tokens_stay(
    n: int, d: int, clip: float, scale: float
) -> None:
    guard = guard_of(PrivacySettings(clip=clip), 1)
    assert guard is not None
    x = tokens(n, d, scale)
    found = guard.tokens(x, UP, 0, 0, 0)
    before, after = (np.linalg.norm(each.astype(float), axis=1) for each in (x, found))
    assert (after <= clip * (1 + 1e-6)).all()
    assert np.allclose(after, np.minimum(before, clip), rtol=1e-5)
    assert np.array_equal(found[before < clip * 0.999], x[before < clip * 0.999])
    directions = (x.astype(float) * found).sum(1) / before / np.maximum(after, 1e-300)
    assert np.allclose(directions, 1, atol=1e-5)


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.sampled_from([1, 7, 12, 64]))
def test_pieces_and_tensors_have_the_noise_of_the_whole(counts: list[int], d: int) -> None:
    guard = guard_of(NOISY, 3, b"secret")
    assert guard is not None
    x, place = tokens(sum(counts), d), (4, 5, 6)
    whole = guard.tokens(x, UP, *place)
    firsts = np.cumsum([0, *counts[:-1]])
    pieces = [
        guard.tokens(x[at : at + n], UP, *place, first=at) for at, n in zip(firsts, counts, strict=True)
    ]
    assert np.array_equal(np.concatenate(pieces), whole)
    assert np.array_equal(guarded(guard, torch.from_numpy(x), UP, *place).numpy(), whole)
    assert guarded(guard, torch.from_numpy(x).double(), UP, *place).dtype == torch.float64
    assert guard.tokens(x, DOWN, *place) is x and guarded(None, torch.ones(1), UP) == 1
    for other in ((UP, 4, 5, 7), (UP, 4, 6, 6), (HEAD_UP, 4, 5, 6)):
        assert not np.array_equal(guard.tokens(x, *other), whole)


def test_draws_are_standard_normal_and_of_their_key_alone() -> None:
    found = normal(b"key", 400, 129)
    assert kstest(found.ravel(), "norm").pvalue > 0.01
    assert abs(np.corrcoef(found[:, 0], found[:, 65])[0, 1]) < 0.2  # halves of one pair
    assert abs(float((found**4).mean()) - 3) < 0.15 and abs(found).max() < FARTHEST
    assert np.array_equal(normal(b"key", 2, 129, 7), found[7:9])
    assert not np.isclose(normal(b"kez", 400, 129), found).any()


def test_a_secret_decides_the_noise_unless_it_is_to_be_reproducible() -> None:
    x = tokens(3, 8)
    own, other, public = (guard_of(NOISY, 1, secret) for secret in (b"a", b"b", b""))
    assert own and other and public and "secret" not in repr(own)
    noise = [each.tokens(x, UP, 0) for each in (own, other, public)]
    assert not np.array_equal(noise[0], noise[1]) and not np.array_equal(noise[0], noise[2])
    again = guard_of(PrivacySettings(clip=2.0, noise=0.5, reproducible=True), 1, b"a")
    assert again is not None and np.array_equal(again.tokens(x, UP, 0), noise[2])
    assert guard_of(PrivacySettings(), 1) is None


def test_the_change_of_adapters_is_one_vector() -> None:
    start, moved = np.float32([1, 2, 3]), np.float32([4, 2, 7])  # a change of norm 5
    clipping = guard_of(PrivacySettings(adapters="user", clip_adapters=1, noise_adapters=0), 1)
    assert clipping is not None
    assert np.allclose(clipping.adapters(moved, start, 0, 0), [1.6, 2, 3.8])
    noisy = guard_of(NOISY, 1)
    assert noisy is not None
    for bits in (8, 32):
        codec = AdapterCodec(bits, 1, guard=noisy)
        found, _ = codec.up(0, 2, 5, torch.from_numpy(moved), torch.from_numpy(start))
        assert np.allclose(found.numpy(), noisy.adapters(moved, start, 0, 2), atol=0.02)
        rounding = codec.rounding({"a": torch.from_numpy(moved)}, ["a"])
        assert rounding is not None and rounding.each(0.0) > noisy.farthest(ADAPTERS) > 0
    assert AdapterCodec(32, 1, guard=guard_of(PrivacySettings(clip=1), 1)).rounding({}, []) is None


@pytest.mark.parametrize("leg", [UP, HEAD_UP, DOWN])
@pytest.mark.parametrize("scheme", ["uniform", "topk", "identity"])
def test_devices_of_any_kind_send_what_a_simulation_has(scheme: str, leg: int) -> None:
    guard = guard_of(NOISY, 7)
    x = tokens(20, 12)
    fleet = Exchange(scheme, 7, {3: (4, 3)}, guard=guard)
    wanted = fleet.token_message(Position(1, 2, 3), leg, torch.from_numpy(x)[None], None).tokens
    plain = Exchange(scheme, 7, {3: (4, 3)})
    unguarded = plain.token_message(Position(1, 2, 3), leg, torch.from_numpy(x)[None], None).tokens
    assert np.array_equal(wanted.codes, unguarded.codes) == (leg == DOWN)
    seen = []
    own = TokenExchange(NumpyCoder(scheme), scheme, 7, 3, 12, 32, (4, 3), guard=guard)
    out = own.outgoing(1, 2, leg, 20, lambda packed: seen.append(packed) or fleet_message(packed))
    for piece in np.split(x, [3, 4, 13]):
        out.write(piece)
    body = out.body()
    found = TokenExchange(NumpyCoder(scheme), scheme, 7, 3, 12, 32, (4, 3))
    assert bytes(body) == bytes(encoded(wanted)) and found.guard is None


def fleet_message(packed):
    from sflam.codec.messages import TokenFrame

    return TokenFrame(1, 2, 3, packed)


def encoded(packed):
    from sflam.codec.bodies import encode

    return encode(fleet_message(packed))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_still_refused(bad: float) -> None:
    x = tokens(2, 4)
    x[1, 2] = bad
    exchange = Exchange("uniform", 7, {0: (4, 4)}, guard=guard_of(NOISY, 7))
    with pytest.raises(NotFiniteError):
        exchange.token_message(Position(0, 0, 0), UP, torch.from_numpy(x)[None], None)
