"""A device without torch makes the bodies that one with torch makes, whole or in pieces, and reads what it is sent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.codec.bodies import encode
from sflam.codec.legs import DOWN, HEAD_DOWN, HEAD_UP, UP
from sflam.codec.messages import StepFrame, TokenFrame
from sflam.codec.quantizers import QUANTIZERS
from sflam.errors import NotFiniteError, WireError
from sflam.learn.examples import Minibatch
from sflam.learn.exchange import Exchange, Position
from sflam.learn.exchange import opened as opened_by_server
from sflam.link.exchange import NumpyCoder, TokenExchange
from sflam.serve.torch_half import TorchCoder

SEED, DEVICE, BITS = 7, 3, (4, 3)


def exchange_of(scheme: str, dim: int, coder: Any = None, float_bits: int = 32) -> TokenExchange[Any]:
    return TokenExchange(coder or NumpyCoder(scheme), scheme, SEED, DEVICE, dim, float_bits, BITS)


def pieces_of(counts: list[int], tokens: np.ndarray) -> list[np.ndarray]:
    return np.split(tokens, np.cumsum(counts)[:-1])


@st.composite
def divided(draw: st.DrawFn) -> tuple[str, int, list[int]]:
    """Return a scheme, d, and the tokens of each piece; also sizes whose codes do not end with a byte."""
    scheme = draw(st.sampled_from(sorted(QUANTIZERS)))
    counts = draw(st.lists(st.integers(1, 23), min_size=1, max_size=6))
    return scheme, draw(st.sampled_from([1, 3, 8, 12, 64])), counts


@settings(deadline=None)
@given(divided(), st.sampled_from([UP, HEAD_UP]))
def test_pieces_make_the_body_that_a_torch_device_makes(case: tuple[str, int, list[int]], leg: int) -> None:
    scheme, dim, counts = case
    n = sum(counts)
    tokens = np.random.default_rng(n).normal(size=(n, dim)).astype(np.float32)
    labels, lengths = np.arange(len(counts), dtype=np.int32), np.array(counts, np.int32)

    def made(packed: Any) -> StepFrame | TokenFrame:
        if leg == UP:
            return StepFrame(2, 5, DEVICE, packed, len(counts), lengths, labels)
        return TokenFrame(2, 5, DEVICE, packed)

    wanted = learned_body(scheme, tokens, counts, leg)
    for coder in (None, TorchCoder(scheme, torch.device("cpu"))):
        exchange = exchange_of(scheme, dim, coder)
        for split in (counts, [n]):
            exchange.remember({})
            out = exchange.outgoing(2, 5, leg, n, made)
            for piece in pieces_of(split, tokens):
                mine = piece.copy()
                out.write(torch.from_numpy(mine) if coder else mine)
                mine[:] = np.nan  # a half may use its arrays again
            assert bytes(out.body()) == wanted


def learned_body(scheme: str, tokens: np.ndarray, counts: list[int], leg: int) -> bytes:
    """Return the body that the simulated fleet sends for these rows."""
    rows = [torch.from_numpy(piece) for piece in pieces_of(counts, tokens)]
    hidden = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor(counts)
    batch = Minibatch({"input_ids": torch.zeros(hidden.shape[:2])}, lengths, torch.arange(len(counts)))
    exchange = Exchange(scheme, SEED, {DEVICE: BITS})
    at = Position(2, 5, DEVICE)
    if leg == UP:
        return encode(exchange.step_message(at, hidden, batch))
    return encode(exchange.token_message(at, leg, hidden, lengths))


@settings(deadline=None)
@given(divided(), st.sampled_from([DOWN, HEAD_DOWN]))
def test_an_answer_is_read_in_any_pieces(case: tuple[str, int, list[int]], leg: int) -> None:
    scheme, dim, counts = case
    n = sum(counts)
    tokens = np.random.default_rng(n).normal(size=(n, dim)).astype(np.float32)
    bits = 32 if scheme == "identity" else BITS[1]
    packed = QUANTIZERS[scheme].encode(tokens, bits, 1)
    wanted = QUANTIZERS[scheme].decode(packed)
    source = exchange_of(scheme, dim).incoming(packed, leg, n)
    parts = [source.read(count) for count in counts]
    np.testing.assert_array_equal(np.concatenate(parts), wanted)
    for part in parts:
        part += 1  # the caller's own


def test_float64_activations_travel_whole_as_raw_floats() -> None:
    tokens = np.random.default_rng(0).normal(size=(5, 3))
    out = exchange_of("identity", 3, float_bits=64).outgoing(0, 0, UP, 5, lambda p: TokenFrame(0, 0, 3, p))
    for piece in pieces_of([2, 3], tokens):
        out.write(piece)
    found = opened_by_server(out.body(), TokenFrame).tokens
    np.testing.assert_array_equal(QUANTIZERS["identity"].decode(found), tokens)


@pytest.mark.parametrize("scheme", sorted(QUANTIZERS))
def test_a_value_that_is_not_finite_names_its_token_of_the_message(scheme: str) -> None:
    tokens = np.zeros((20, 8), np.float32)
    tokens[17] = np.inf
    out = exchange_of(scheme, 8).outgoing(0, 0, UP, 20, lambda p: TokenFrame(0, 0, 3, p))
    with pytest.raises(NotFiniteError, match="token 17 "):
        out.write(tokens[:10])
        out.write(tokens[10:])
        out.body()


def test_what_was_left_out_goes_back_when_a_step_is_made_again() -> None:
    exchange = exchange_of("topk", 16)
    draw = np.random.default_rng(3)
    first, second = (draw.normal(size=(6, 16)).astype(np.float32) for _ in range(2))

    def body(step: int, tokens: np.ndarray) -> bytes:
        out = exchange.outgoing(0, step, HEAD_UP, 6, lambda p: TokenFrame(0, step, DEVICE, p))
        out.write(tokens)
        return bytes(out.body())

    body(0, first)
    memory = exchange.memory()
    wanted = body(1, second)
    assert body(1, second) != wanted  # it remembers
    exchange.remember(memory)
    assert body(1, second) == wanted


@pytest.mark.parametrize(
    ("scheme", "bits", "tokens", "dim"),
    [("rotated", 3, 4, 8), ("uniform", 4, 4, 8), ("uniform", 3, 5, 8), ("uniform", 3, 4, 16)],
)
def test_another_answer_than_agreed_is_refused(scheme: str, bits: int, tokens: int, dim: int) -> None:
    packed = QUANTIZERS[scheme].encode(np.zeros((tokens, dim), np.float32), bits, 0)
    with pytest.raises(WireError, match="were agreed"):
        exchange_of("uniform", 8).incoming(packed, DOWN, 4)
