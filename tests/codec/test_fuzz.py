"""Fuzz: whatever arrives, ``decode`` returns a valid message or raises WireError, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sflam.codec.bodies import decode, encode
from sflam.codec.messages import GradientFrame, Message, StepFrame
from sflam.codec.quantizers import quantizer
from sflam.errors import SflamError, WireError
from sflam.sizes import HEADER_BYTES
from tests.codec.frames import messages

FEW = settings(deadline=None, max_examples=100)
PREFIX = (HEADER_BYTES - 8).to_bytes(8, "little")


def survives(body: bytes) -> None:
    """Decode, and where that works, use the message: encode it again, and decode its tokens."""
    try:
        message = decode(body)
    except WireError as error:
        assert len(str(error)) < 3000
        return
    assert len(encode(message)) == len(body)
    match message:
        case StepFrame(activations=packed) | GradientFrame(gradient=packed) if packed is not None:
            try:
                assert np.isfinite(quantizer(packed.scheme).decode(packed)).all()
            except SflamError:
                assert packed.scheme == "identity"  # raw floats are judged where they are decoded


@FEW
@given(body=st.binary(max_size=700))
def test_random_bytes(body: bytes) -> None:
    survives(body)


@FEW
@given(text=st.binary(max_size=HEADER_BYTES - 8), tail=st.binary(max_size=64))
def test_random_headers(text: bytes, tail: bytes) -> None:
    survives(PREFIX + text.ljust(HEADER_BYTES - 8) + tail)


@FEW
@given(message=messages(), flips=st.lists(st.integers(0, 2**32), min_size=1, max_size=6))
def test_flipped_bits(message: Message, flips: list[int]) -> None:
    body = bytearray(encode(message))
    used = len(bytes(body[:HEADER_BYTES]).rstrip())
    for flip in flips:  # most flips in padding would change nothing, so spread them over the rest
        place = flip // 8 % (used + len(body) - HEADER_BYTES)
        body[place if place < used else place - used + HEADER_BYTES] ^= 1 << flip % 8
    survives(bytes(body))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 10**12)
    | st.floats()
    | st.sampled_from(["", "1", "U8", "F32", "step"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["dtype", "shape", "x"]), inner)
    ),
    max_leaves=6,
)


@FEW
@given(message=messages(), data=st.data())
@example(message=GradientFrame(0, 0, 0, 0.0, None), data=None)
def test_headers_with_one_value_replaced(message: Message, data: Any) -> None:
    body = encode(message)
    header = json.loads(body[8:HEADER_BYTES])
    if data is not None:
        target = header
        key = data.draw(st.sampled_from(sorted(target)))
        while isinstance(target[key], dict) and target[key] and data.draw(st.booleans()):
            target = target[key]
            key = data.draw(st.sampled_from(sorted(target)))
        target[key] = data.draw(JSON)
    text = json.dumps(header).encode()[: HEADER_BYTES - 8].ljust(HEADER_BYTES - 8)
    survives(PREFIX + text + body[HEADER_BYTES:])


@FEW
@given(message=messages(), other=messages())
def test_the_header_of_one_message_on_the_tensors_of_another(message: Message, other: Message) -> None:
    survives(encode(message)[:HEADER_BYTES] + encode(other)[HEADER_BYTES:])
