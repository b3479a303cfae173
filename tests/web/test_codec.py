"""The page's codec writes and reads the very bytes of the NumPy side."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from sflam.codec.adapter_change import encode_change
from sflam.codec.bodies import encode
from sflam.codec.common_grid import grids
from sflam.codec.messages import AdapterFrame, ChangeFrame, GradientFrame, StepFrame, TokenFrame
from sflam.codec.quantizers import QUANTIZERS, quantizer
from sflam.codec.topk import TopK
from sflam.errors import QuantizerError
from sflam.sizes import adapter_groups
from tests.web.node import needs_node, packed_array, run_check

SHAPES = ((1, 1), (3, 5), (17, 32), (9, 48), (40, 128), (6, 384), (2, 7))
PLACE = {"round": 2, "step": 5, "device": 1}


def tokens_of(count, dim, rng):
    """Return float32 [n, d] with every kind of token: normal, constant, zeros of both signs, subnormal, huge, ties."""
    x = rng.standard_normal((count, dim)).astype(np.float32)
    kinds = [1.0, 1e-42, 1e30, 0.0, -0.0, 1e-20]
    for token in range(count):
        x[token] *= np.float32(kinds[token % len(kinds)])
    x[count // 2] = x[count // 2, 0]
    if count > 3:
        x[3] = np.resize(np.array([1, -1, 0.5], np.float32), dim)
    return x


def token_cases():
    rng = np.random.default_rng(5)
    for scheme in QUANTIZERS:
        for count, dim in SHAPES:
            for bits in (32,) if scheme == "identity" else (1, 2, 3, 4, 7, 8, 11, 16):
                x, seed = tokens_of(count, dim, rng), int(rng.integers(1 << 62)) * 2
                packed = quantizer(scheme).encode(x, bits, seed)
                yield {
                    "name": f"{scheme} {bits} bits [{count}, {dim}]",
                    "scheme": scheme,
                    "bits": bits,
                    "dim": dim,
                    "seed": str(seed),
                    "x": packed_array(x),
                    "codes": packed_array(packed.codes),
                    "side": packed_array(packed.side.reshape(-1)),
                    "decoded": packed_array(quantizer(scheme).decode(packed).reshape(-1)),
                }


def remembering_cases():
    rng = np.random.default_rng(6)
    for dim, bits in ((48, 4), (128, 2)):
        left, messages = None, []
        for count in (1030, 3, 17):
            x, seed = rng.standard_normal((count, dim)).astype(np.float32), int(rng.integers(1 << 62))
            packed, left = TopK().encode_after(left, x, bits, seed)
            entry = {"x": x, "codes": packed.codes, "after": left}
            messages.append({key: packed_array(value) for key, value in entry.items()} | {"seed": str(seed)})
        yield {"name": f"topk {bits} bits after", "dim": dim, "bits": bits, "messages": messages}


def refused_cases():
    for scheme, spoilt in (("uniform", np.nan), ("rotated", 3e38), ("topk", np.inf), ("identity", -np.inf)):
        x = np.ones((3, 8), np.float32)
        x[1, ::2] = spoilt
        with pytest.raises(QuantizerError):
            quantizer(scheme).encode(x, 32 if scheme == "identity" else 4, 1)
        yield {"name": scheme, "scheme": scheme, "bits": 4, "dim": 8, "x": packed_array(x)}


def packed_of(scheme, rng, count=6):
    bits = 32 if scheme == "identity" else 5
    return quantizer(scheme).encode(rng.standard_normal((count, 12)).astype(np.float32), bits, 9)


def sent(packed):
    """Return encoded tokens as the page has them."""
    plain = {field.name: getattr(packed, field.name) for field in fields(packed)}
    return plain | {"codes": packed_array(packed.codes), "side": packed_array(packed.side.reshape(-1))}


def body_cases():
    rng = np.random.default_rng(7)
    lengths, labels = np.array([4, 2], np.int32), np.array([1, 0], np.int32)
    for scheme in QUANTIZERS:
        packed = packed_of(scheme, rng)
        for own in ({}, {"lengths": lengths}, {"labels": labels}, {"lengths": lengths, "labels": labels}):
            vectors = {"lengths": None, "labels": None} | own
            message = StepFrame(**PLACE, activations=packed, rows=2, **vectors)
            ours = {name: None if v is None else packed_array(v) for name, v in vectors.items()}
            yield {
                "name": f"step {scheme} {sorted(own)}",
                "message": {"kind": "step", "rows": 2} | PLACE | ours,
                "tokens": sent(packed),
                "body": packed_array(np.frombuffer(encode(message), np.uint8)),
            }
        yield {
            "name": f"tokens {scheme}",
            "message": {"kind": "tokens"} | PLACE,
            "tokens": sent(packed),
            "body": packed_array(np.frombuffer(encode(TokenFrame(**PLACE, tokens=packed)), np.uint8)),
        }
    values = rng.standard_normal(33).astype(np.float32)
    yield {
        "name": "adapters",
        "message": {
            "kind": "adapter",
            "round": 3,
            "device": 1,
            "samples": 12,
            "values": packed_array(values),
        },
        "body": packed_array(np.frombuffer(encode(AdapterFrame(3, 1, 12, values)), np.uint8)),
    }


def change_cases():
    """Bodies of what a device trained, floats and changes of all widths, by the page's own exchange."""
    rng = np.random.default_rng(9)
    for count, bits in ((1, 8), (128, 1), (300, 8), (300, 5), (257, 16), (40, 32)):
        for common in (False, True) if bits < 32 else (False,):
            yield change_case(rng, count, bits, common)


def change_case(rng, count, bits, common):
    start = rng.standard_normal(count).astype(np.float32)
    values = (start + 1e-3 * rng.standard_normal(count)).astype(np.float32)
    message = AdapterFrame(4, 2, 30, values)
    side = np.zeros((adapter_groups(count), 2), np.uint16)
    if common:  # narrower than what changed: some of it is beyond
        reach = rng.uniform(5e-4, 5e-3, adapter_groups(count)).astype(np.float32)
        side = grids(reach, bits)
    if bits < 32:
        change = encode_change(values, start, bits, seed=2**62 + 1, round=4, device=2, side=side)
        message = ChangeFrame(4, 2, 30, change)
    return {
        "name": f"change of {count} values, {bits} bits, common {common}",
        "grid": packed_array(side.reshape(-1)),
        "bits": bits,
        "seed": str(2**62 + 1),
        "values": packed_array(values),
        "start": packed_array(start),
        "body": packed_array(np.frombuffer(encode(message), np.uint8)),
    }


def answer_cases():
    rng = np.random.default_rng(8)
    values = rng.standard_normal(33).astype(np.float32)
    for scheme in QUANTIZERS:
        packed = packed_of(scheme, rng)
        decoded = packed_array(quantizer(scheme).decode(packed).reshape(-1))
        for kind, message in (
            ("gradient", GradientFrame(**PLACE, loss=0.1 + 0.2, gradient=packed)),
            ("tokens", TokenFrame(**PLACE, tokens=packed)),
        ):
            shown = PLACE | ({"loss": 0.1 + 0.2} if kind == "gradient" else {})
            body = packed_array(np.frombuffer(encode(message), np.uint8))
            yield {
                "name": f"{kind} {scheme}",
                "kind": kind,
                "body": body,
                "message": shown,
                "decoded": decoded,
            }
    for name, kind, message, shown in (
        ("loss alone", "gradient", GradientFrame(**PLACE, loss=1e-5, gradient=None), {"loss": 1e-5}),
        ("adapters", "adapter", AdapterFrame(3, 1, 0, values), {"samples": 0, "round": 3}),
    ):
        found = {"decoded": packed_array(values)} if kind == "adapter" else {}
        body = packed_array(np.frombuffer(encode(message), np.uint8))
        yield {"name": name, "kind": kind, "body": body, "message": shown, **found}


@needs_node
def test_the_bytes_are_those_of_numpy(tmp_path):
    given = {
        "tokens": list(token_cases()),
        "remembering": list(remembering_cases()),
        "refused": list(refused_cases()),
        "bodies": list(body_cases()),
        "changes": list(change_cases()),
        "answers": list(answer_cases()),
        # another length of the header, its first letter, a letter of its first key, and the end cut off
        "spoilt": [[0, 1], [8, 1], [11, 1], [-1, 0]],
    }
    assert int(run_check("codec", given, tmp_path)) == len(given["tokens"]) > 150
