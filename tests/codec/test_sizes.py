"""Sizes: what the cost model charges, what the socket sees, and how little lies between them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam import sizes
from sflam.codec import bodies as codec
from sflam.codec.messages import AdapterFrame, ChangeFrame, GradientFrame, Message, StepFrame
from sflam.codec.quantizers import quantizer
from sflam.errors import WireError
from tests.codec.frames import messages, packed, step


def expected_size(message: Message) -> int:
    match message:
        case StepFrame(activations=sent, lengths=lengths, labels=labels):
            return sizes.step_body_bytes(
                sent.tokens,
                sent.dim,
                sent.bits,
                rows=message.rows,
                lengths=lengths is not None,
                labels=0 if labels is None else len(labels),
                samples=message.samples is not None,
                scheme=sent.scheme,
            )
        case GradientFrame(gradient=None):
            return sizes.token_body_bytes(0, 1, 8)
        case GradientFrame(gradient=sent):
            return sizes.token_body_bytes(sent.tokens, sent.dim, sent.bits, sent.scheme)
        case ChangeFrame(change=sent):  # as tokens; those of adapters are groups of one size
            return sizes.token_body_bytes(sent.tokens, sent.dim, sent.bits, sent.scheme)
        case AdapterFrame(values=values):
            return sizes.adapter_body_bytes(len(values), 8 * values.itemsize)


@settings(deadline=None, max_examples=60)
@given(message=messages())
def test_a_bodys_size_is_known_before_it_is_written(message: Message) -> None:
    """Exactly, or at most where values that are rounded to 0 are not sent."""
    written, known = len(codec.encode(message)), expected_size(message)
    sent = next(
        filter(None, (getattr(message, name, None) for name in ("activations", "gradient", "change"))), None
    )
    assert written == known or (sent and sizes.is_variable(sent.scheme) and written < known)


@settings(deadline=None, max_examples=60)
@given(zeros=st.integers(0, 12), bits=st.integers(1, 16))
def test_a_body_of_variable_size_is_the_bound_where_no_value_is_rounded_to_zero(
    zeros: int, bits: int
) -> None:
    x = np.full((4, 3), 2.0, np.float32)
    x.reshape(-1)[:zeros] = 0
    sent = quantizer(sizes.TOPK).encode(x, bits, 0)
    written, known = (
        len(codec.encode(step(rows=1, activations=sent))),
        sizes.step_body_bytes(4, 3, bits, rows=1, scheme=sizes.TOPK),
    )
    assert (written == known) == (sent.nbytes == sizes.topk_bound(4, 3, bits)) and written <= known


def test_four_bits_cost_under_five_percent_more_than_four_bits() -> None:
    """Bytes of a whole body, header included, against the bare codes: ViT-small, batch 32."""
    body = codec.encode(step(32 * 197, 384, rows=32, labels=np.zeros(32, np.int32)))
    codes = 32 * 197 * 384 * 4 / 8
    assert len(body) < 1.05 * codes
    for dim in (384, 768, 1024):
        assert sizes.payload_bits(197, dim, 4) < 1.05 * 197 * dim * 4


@pytest.mark.parametrize("bits", range(1, 17))
def test_the_payload_is_codes_plus_32_bits_a_token(bits: int) -> None:
    assert sizes.payload_bits(10, 7, bits) == 10 * 7 * bits + 10 * 32
    sent = packed(10, 7, bits)
    assert sent.nbytes == sizes.payload_bytes(10, 7, bits) == quantizer("uniform").nbytes(10, 7, bits)
    assert packed(10, 7, bits, "rotated").nbytes == sizes.payload_bytes(10, 7, bits, "rotated") == sent.nbytes
    assert 0 <= 8 * sent.nbytes - sizes.payload_bits(10, 7, bits) < 8  # the last byte's spare bits


def test_identity_costs_raw_floats() -> None:
    assert (
        sizes.payload_bits(10, 7, 8, "identity") == sizes.payload_bits(10, 7, 32, "identity") == 10 * 7 * 32
    )
    assert sizes.payload_bits(10, 7, 64, "identity") == 10 * 7 * 64
    assert sizes.payload_bytes(10, 7, 64, "identity") == 10 * 7 * 8


def test_masks_travel_as_one_number_per_row_and_never_as_token_by_token_squares() -> None:
    rows, most = 8, 128
    lengths = np.full(rows, 100, np.int32)
    lengths[0] = most
    full = len(codec.encode(step(rows * most, 16, rows)))
    masked = len(codec.encode(step(int(lengths.sum()), 16, rows, lengths=lengths)))
    assert masked - sizes.HEADER_BYTES == sizes.payload_bytes(int(lengths.sum()), 16, 4) + 4 * rows
    assert masked < full  # padding is not sent, so a mask makes bodies smaller


def test_the_header_holds_the_largest_numbers_within_the_limits() -> None:
    """Every combination of long numbers either fits in the header or reaches the limit of a body."""
    most, longest = sizes.COUNT_LIMIT - 1, 0
    counts = sorted({10**k for k in range(9)} | {10**k - 1 for k in range(1, 10)})
    for tokens in counts:
        for dim in counts:
            for scheme, bits in (
                ("uniform", 8),
                ("rotated", 16),
                ("topk", 16),
                ("identity", 32),
                ("identity", 64),
            ):
                metadata = {"kind": "step", "scheme": scheme, "bits": str(bits), "tokens": str(tokens)}
                metadata |= {"dim": str(dim)} | dict.fromkeys(("round", "step", "device", "rows"), str(most))
                specs = [*codec.token_specs(scheme, bits, tokens, dim)]
                rows = most * 8 // 10  # three vectors of more would reach the limit of a body
                specs += [(name, "I32", (rows,)) for name in ("lengths", "labels", "samples")]
                try:
                    table = codec.layout(specs)
                except WireError:
                    continue
                text = codec.header(metadata, table).rstrip()
                longest = max(longest, len(text))
    assert sizes.HEADER_BYTES - 16 < longest + 8 <= sizes.HEADER_BYTES  # and none is much shorter
    assert sizes.HEADER_BYTES % 8 == 0
    numbers = {key: str(most) for key in ("round", "step", "device", "tokens", "dim")}
    wide = {
        "kind": "gradient",
        "loss": repr(-1.2345678901234567e-300),
        "scheme": "uniform",
        "bits": "16",
    } | numbers
    assert len(json.dumps(wide)) < 250


def test_a_body_beyond_the_limit_is_refused_before_it_is_built() -> None:
    with pytest.raises(WireError, match="limit"):
        codec.layout([("codes", "U8", (sizes.BODY_LIMIT,))])
