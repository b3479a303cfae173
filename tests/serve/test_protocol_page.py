"""docs/reference/protocol.md is right to the byte: its examples are what the code writes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from sflam.codec.adapter_change import decode_change, encode_change
from sflam.codec.bodies import decode, encode
from sflam.codec.messages import AdapterFrame, ChangeFrame, GradientFrame, StepFrame, TokenFrame
from sflam.codec.quantizers import quantizer
from sflam.secure.bodies import KINDS, encode_message
from sflam.secure.messages import Advert, MaskedVector, Roll

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "protocol.md").read_text(encoding="utf-8")
VECTORS = dict(re.findall(r"```text vector=(\w+)\n(.*?)```", PAGE, re.DOTALL))
TOKENS = np.array([[0, 1, 2, 3], [-1, 0.5, 0.25, 4], [1, 1, 1, 1]], np.float32)
PACKED = quantizer("uniform").encode(TOKENS, 4, 7)
LENGTHS, LABELS = np.array([2, 1], np.int32), np.array([3, 0], np.int32)
START, TRAINED = (np.array(each, np.float32) for each in ([0.5, -0.25, 1.0], [0.625, -0.375, 1.0]))
CHANGE = encode_change(TRAINED, START, 4, seed=7, round=2, device=1)
MESSAGES = {
    "step": StepFrame(2, 5, 1, activations=PACKED, rows=2, lengths=LENGTHS, labels=LABELS),
    "gradient": GradientFrame(2, 5, 1, loss=0.6931471805599453, gradient=PACKED),
    "loss": GradientFrame(2, 5, 1, loss=0.5, gradient=None),
    "tokens": TokenFrame(2, 5, 1, PACKED),
    "adapter": AdapterFrame(2, 1, 16, START),
    "change": ChangeFrame(2, 1, 16, CHANGE),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_an_example_is_what_is_written(name):
    header, data = re.fullmatch(r"header (.*)\ndata ?(.*)\n", VECTORS[name]).groups()
    body = (584).to_bytes(8, "little") + header.encode().ljust(584) + bytes.fromhex(data)
    assert encode(MESSAGES[name]) == body
    assert type(decode(body)) is type(MESSAGES[name])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("keys", Advert(box=bytes([1]) * 32, mask=bytes([2]) * 32)),
        ("roll", Roll(present=(0,), lost=(2,))),
        ("masked", MaskedVector(values=np.array([258, 3], np.uint64), width=2)),
    ],
)
def test_an_example_of_a_sum_is_what_is_written(name, message):
    (found,) = re.findall(rf"```text sum={name}\n(.*)\n```", PAGE)
    assert encode_message(message).hex() == found
    assert [kind.__name__ for kind in KINDS] == [
        "Advert", "Neighbours", "SealedShares", "MaskedVector", "Roll", "RevealedShares"
    ]  # fmt: skip


def test_every_example_is_tested_and_every_route_is_reported():
    assert VECTORS.keys() == MESSAGES.keys()
    app = (Path(__file__).parents[2] / "src/sflam/serve/app.py").read_text(encoding="utf-8")
    for path in re.findall(r'route\("(/v1/\w+)', app):
        assert path in PAGE


def test_a_change_is_added_as_the_page_says():
    code = int(CHANGE.codes[0])
    offset, step = (CHANGE.side.astype(np.uint32) << 16).view(np.float32)[0]
    found = START[:2] + offset + step * np.array([code & 15, code >> 4], np.float32)
    assert np.array_equal(found, decode_change(CHANGE, START)[:2])


def test_codes_decode_as_the_page_says():
    bits = np.unpackbits(PACKED.codes, bitorder="little").reshape(3, 4, 4)
    codes = (bits * (1 << np.arange(4))).sum(-1)
    side = (PACKED.side.astype(np.uint32) << 16).view(np.float32)
    found = side[:, :1] + codes * side[:, 1:]
    assert np.array_equal(found, quantizer("uniform").decode(PACKED))
