"""Messages of many devices in one pass: the bytes and the values that each has by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.codec import noise, together
from sflam.codec.quantizer import Floats, Packed, Piecewise, offers
from sflam.codec.torch_quantizers import TorchQuantizer, laid_together, torch_quantizer
from sflam.codec.uniform import Uniform
from sflam.errors import NotFiniteError
from tests.codec.tokens import BITS, SEEDS, tokens

SCHEMES = st.sampled_from(["uniform", "rotated", "topk", "identity"])
MESSAGES = st.lists(st.tuples(tokens(most=5), BITS, SEEDS), min_size=1, max_size=6)


def same(one: Packed, other: Packed) -> bool:
    numbers = (one.scheme, one.bits, one.tokens, one.dim) == (
        other.scheme,
        other.bits,
        other.tokens,
        other.dim,
    )
    return numbers and np.array_equal(one.codes, other.codes) and np.array_equal(one.side, other.side)


def normal(n: int, dim: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=60)
@given(scheme=SCHEMES, messages=MESSAGES)
def test_any_messages_are_as_one_by_one(scheme: str, messages: list[tuple[np.ndarray, int, int]]) -> None:
    quantizer = torch_quantizer(scheme)
    each, bits, seeds = (list(part) for part in zip(*messages, strict=True))
    x = [torch.from_numpy(values) for values in each]
    try:
        alone = [quantizer.encode(*message) for message in zip(x, bits, seeds, strict=True)]
    except NotFiniteError as error:  # rotated, huge values leave float32
        with pytest.raises(NotFiniteError) as caught:
            quantizer.encode_each(x, bits, seeds)
        assert str(caught.value) == str(error)
        return
    found = quantizer.encode_each(x, bits, seeds)
    assert all(map(same, found, alone)) and len(found) == len(alone)
    for values, packed in zip(quantizer.decode_each(found), alone, strict=True):
        assert values.numpy().tobytes() == quantizer.decode(packed).numpy().tobytes()


@settings(deadline=None, max_examples=40)
@given(counts=st.lists(st.integers(0, 7), min_size=1, max_size=6), bits=BITS, seed=SEEDS)
def test_messages_of_a_step_are_as_one_by_one(counts: list[int], bits: int, seed: int) -> None:
    parts = [
        *torch.split(normal(sum(counts), seed=seed % 2**31), counts)
    ]  # as a pass leaves them, laid end to end
    seeds = [seed ^ index for index in range(len(counts))]
    quantizer = torch_quantizer("uniform")
    found = quantizer.encode_each(parts, [bits] * len(counts), seeds)
    alone = [quantizer.encode(*message) for message in zip(parts, [bits] * len(counts), seeds, strict=True)]
    assert all(map(same, found, alone))


def test_a_step_calls_the_quantizer_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for name in ("encode_keyed", "decode"):
        honest = getattr(Uniform, name)

        def counted(*arguments: object, name: str = name, honest: object = honest) -> object:
            calls.append(name)
            return honest(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(Uniform, name, counted)
    quantizer = torch_quantizer("uniform")
    packed = quantizer.encode_each([normal(3, seed=k) for k in range(9)], [8] * 9, list(range(9)))
    quantizer.decode_each(packed)
    assert calls == ["encode_keyed", "decode"]


def test_a_pass_is_of_messages_alike_and_of_few_values() -> None:
    half = together.MOST // 2 // 16
    alike = [(8, half, 16)] * 3
    assert together.passes(alike) == [(0, 2), (2, 3)]  # bounded, so that many devices take no more memory
    assert together.passes([(8, 3, 16), (4, 3, 16), (4, 3, 32)]) == [(0, 1), (1, 2), (2, 3)]
    assert together.passes([(5, 3, 3)] * 2) == [(0, 1), (1, 2)]  # a token's codes end in the middle of a byte
    assert together.passes([(32, 3, 16)] * 2) == [(0, 1), (1, 2)]  # raw floats
    assert together.passes([]) == []


def test_what_cannot_be_encoded_is_named_by_its_own_token() -> None:
    x = [normal(4), normal(4)]
    x[1][2, 5] = float("nan")
    with pytest.raises(NotFiniteError, match=r"^token 2 ranges"):
        torch_quantizer("uniform").encode_each(x, [8, 8], [1, 2])


def test_keys_of_several_messages_are_those_of_each() -> None:
    seeds, counts = [0, 2**64 - 1, 12345], [3, 0, 5]
    wanted = np.concatenate([noise.token_keys(*pair) for pair in zip(seeds, counts, strict=True)])
    assert np.array_equal(noise.keys_of_each(seeds, counts), wanted)


def test_parts_of_one_tensor_are_laid_together_without_a_copy() -> None:
    whole = normal(6)
    parts = [*torch.split(whole, [1, 2, 3])]
    assert laid_together(parts).data_ptr() == whole.data_ptr()
    assert torch.equal(laid_together(parts), whole)
    for others in (
        [parts[1], parts[0]],
        [parts[0], parts[2]],
        [whole[:, :8], whole[:, 8:]],
        [normal(1), normal(2)],
    ):
        assert torch.equal(laid_together(others), torch.cat(others))


class Doubled(Uniform):
    """A quantizer of a user that changes what is sent, and inherits all else."""

    name = "uniform"

    def encode(self, x: Floats, bits: int, seed: int) -> Packed:
        """Encode twice the values."""
        return super().encode_part(2 * x, bits, seed, 0)


class Reversed(Uniform):
    """One that changes what is read, of all tokens of a message at once."""

    name = "uniform"

    def decode(self, packed: Packed) -> Floats:
        """Return the tokens from the last to the first."""
        return super().decode(packed)[::-1]


@pytest.mark.parametrize("own", [Doubled(), Reversed()])
def test_what_a_subclass_changes_is_never_passed_by(own: Uniform) -> None:
    each = [torch.randn(3, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    together = TorchQuantizer(own)
    sent = together.encode_each(each, [4] * 4, [*range(4)])
    for seed, (x, packed) in enumerate(zip(each, sent, strict=True)):
        assert packed.codes.tobytes() == own.encode(x.numpy(), 4, seed).codes.tobytes()
    for packed, found in zip(sent, together.decode_each(sent), strict=True):
        assert (found.numpy() == own.decode(packed)).all()
    assert not offers(own, Piecewise, "encode_part") and offers(Uniform(), Piecewise, "encode_part")
