"""Graphs and tensors of strangers: the page reads what the NumPy device reads, and refuses the rest in one line."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from sflam.device.weights import Weights
from sflam.errors import GraphError, WireError
from sflam.graph.operations import KINDS
from sflam.graph.reading import MOST_BYTES, read_bundle
from sflam.graph.writing import bundle_to_json
from tests.device import hand_made
from tests.graph.examples import bundle
from tests.graph.hostile import HOSTILE, PLACES, broken
from tests.web.engine_process import NodeEngine, PageError, node_engine, text_of
from tests.web.node import STATIC, needs_node

pytestmark = needs_node
page = pytest.fixture(node_engine, scope="module")


def refusal(page: NodeEngine, body: bytes) -> str | None:
    """Return the line the page refuses a file of graphs with, None where it reads it."""
    try:
        page.ask("bundle", body=text_of(body))
    except PageError as error:
        return str(error)
    return None


def lean_refusal(body: bytes) -> str | None:
    try:
        read_bundle(body)
    except GraphError as error:
        return str(error)
    return None


def test_anything_put_anywhere_is_judged_as_the_numpy_device_judges_it(page: NodeEngine) -> None:
    draw = random.Random(3)
    read = 0
    for _ in range(1500):
        place = draw.choice(PLACES), draw.choice(HOSTILE), draw.choice(["put", "put", "drop", "double"])
        body = broken(*place)
        ours, theirs = lean_refusal(body), refusal(page, body)
        assert (ours is None) == (theirs is None), (place, ours, theirs)
        assert theirs is None or theirs.startswith("GraphError: "), theirs
        read += theirs is None
    assert 20 < read < 700


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{}" + b" " * MOST_BYTES, "bytes; at most"),
        (b"\xff\xfe", "no UTF-8"),
        (b"[" * 100_000, "more than 64 levels"),
        (b'{"version": NaN}', "nothing that JSON knows"),
        (b'{"version": 1e999}', "not finite"),
        (b'{"cut": 1, "cut": 2}', "one name twice"),
        (b'{"__proto__": {"cut": 1}}', "bundle has"),
        (b'"\\ud83d', "without its end"),
        (b"1 2", "more after its end"),
        (b"01", "more after its end"),
    ],
)
def test_json_of_strangers(page: NodeEngine, body: bytes, reason: str) -> None:
    found = refusal(page, body)
    assert found is not None and found.startswith("GraphError: ") and reason in found
    assert lean_refusal(body) is not None


def test_an_operation_that_the_page_does_not_know_is_named(page: NodeEngine) -> None:
    data = bundle_to_json(bundle())
    data["kinds"][0]["forward"]["operations"][0][0] = "fft"
    found = refusal(page, json.dumps(data).encode())
    assert found == 'GraphError: kind 0, forward: unknown kind of operation "fft"'


def test_the_page_knows_every_kind() -> None:
    table = (STATIC / "graph" / "operations.js").read_text()
    assert all(f'"{kind}"' in table for kind in KINDS)


@pytest.mark.parametrize("text", [False, True])
def test_bundles_of_both_kinds_of_rows_are_read(page: NodeEngine, text: bool) -> None:
    body = json.dumps(bundle_to_json(hand_made.bundle(text, 2, labels_at_home=True, dropout=0.1))).encode()
    assert page.ask("bundle", body=text_of(body))["cut"] == 2


STORED = {
    "F32": torch.float32,
    "F64": torch.float64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "BOOL": torch.bool,
}


@pytest.mark.parametrize("tag", [*STORED, "I8"])
def test_tensors_are_the_numpy_devices(page: NodeEngine, tmp_path: Path, tag: str) -> None:
    numbers = {"I64": "int", "I32": "int", "BOOL": "bool"}.get(tag, "float")
    draw = torch.randn(5, 7, generator=torch.Generator().manual_seed(1)) * 100
    if tag == "I8":
        tensors = {"x": draw.clamp(-127, 127).to(torch.int8), "x.scale": torch.rand(5)}
    else:
        tensors = {"x": (draw > 0) if tag == "BOOL" else draw.to(STORED[tag])}
    tensors["odd"] = torch.tensor([True])  # what follows begins anywhere
    (tmp_path / "x").write_bytes(save(tensors))
    wanted = np.empty((5, 7), {"int": np.int64, "bool": np.bool_, "float": np.float32}[numbers])
    with Weights(tmp_path / "x", keep=False) as weights:
        weights.frozen("x", dtype=wanted.dtype).read(wanted)
    found = page.ask(
        "tensor", body=text_of((tmp_path / "x").read_bytes()), name="x", count=35, numbers=numbers
    )
    np.testing.assert_array_equal(found["tensor"].reshape(5, 7).astype(wanted.dtype), wanted)


def headed(table: Any, data: bytes = b"") -> bytes:
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    return len(text).to_bytes(8, "little") + text + data


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff" * 9,
        (1 << 63).to_bytes(8, "little") + b"{}",
        headed(b"[]"),
        headed(b"\xff\xff"),
        headed(b'{"x": 1, "x": 2}'),
        headed({"x": ONE}),
        headed({"x": ONE}, b"12345"),
        headed({"x": ONE | {"dtype": "F8"}}, b"1234"),
        headed({"x": ONE | {"shape": [2]}}, b"1234"),
        headed({"x": ONE | {"shape": [-1]}}, b"1234"),
        headed({"x": ONE | {"shape": [1.0]}}, b"1234"),
        headed({"x": ONE | {"shape": [1 << 47, 1 << 47]}}, b"1234"),
        headed({"x": ONE | {"data_offsets": [4, 8]}}, b"12345678"),
        headed({"x": ONE, "y": ONE}, b"1234"),
        headed({"x": ONE | {"more": 1}}, b"1234"),
        headed({"x": {"dtype": "F32", "shape": [0] * 9, "data_offsets": [0, 0]}}),
    ],
)
def test_a_damaged_file_is_one_line(page: NodeEngine, tmp_path: Path, body: bytes) -> None:
    with pytest.raises(PageError, match="WireError: "):
        page.ask("tensor", body=text_of(body), name="x", count=1, numbers="float")
    (tmp_path / "x").write_bytes(body)
    with pytest.raises(WireError):
        Weights(tmp_path / "x", keep=False)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"y": torch.zeros(3)}, "has no tensor x"),
        ({"x": torch.zeros(4)}, "has the shape"),
        ({"x": torch.zeros(3, dtype=torch.int8)}, "must have float32 scales"),
        ({"x": torch.zeros(3, dtype=torch.int8), "x.scale": torch.zeros(2)}, "must have float32 scales"),
    ],
)
def test_a_tensor_that_is_not_the_graphs(page: NodeEngine, tensors: Any, reason: str) -> None:
    with pytest.raises(PageError, match=reason):
        page.ask("tensor", body=text_of(save(tensors)), name="x", count=3, numbers="float")
