"""The segment file: what safetensors writes is read back, and no header leads a device astray."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sflam.device import frozen
from sflam.device.weights import MOST_HEADER, Weights
from sflam.errors import WireError


def header(path: Path, entries: Any, data: int, *, length: int | None = None) -> Path:
    """Write a file with this header and ``data`` zero bytes."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + bytes(data))
    return path


def entry(start: int, end: int, shape: Any = None, dtype: Any = "F32") -> dict[str, Any]:
    """Return one tensor's part of a header."""
    return {
        "dtype": dtype,
        "shape": [(end - start) // 4] if shape is None else shape,
        "data_offsets": [start, end],
    }


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_read_as_written(
    tmp_path: Path, keep: bool, stored: torch.dtype, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "SLICE_BYTES", 100)
    torch.manual_seed(0)
    tensors = {
        "w": torch.randn(7, 5),
        "one": torch.randn(()),
        "none": torch.zeros(0, 3),
        "conv": torch.randn(4, 2, 3),
    }
    tensors = {name: tensor.to(stored) for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / "segment.safetensors")
    weights = Weights(tmp_path / "segment.safetensors", keep=keep)
    for name, tensor in tensors.items():
        found = weights.frozen(name, dtype=dtype)
        out = np.empty(found.shape, dtype)
        found.read(out)
        np.testing.assert_array_equal(out, tensor.double().numpy().astype(dtype))
    w = weights.frozen("w", dtype=dtype)
    expected = tensors["w"].double().numpy().astype(dtype)
    np.testing.assert_array_equal(w.rows(2, 6, np.empty((4, 5), dtype)), expected[2:6])
    picked = np.empty((3, 5), dtype)
    w.take(np.array([6, 0, 6]), picked)
    np.testing.assert_array_equal(picked, expected[[6, 0, 6]])
    merged = weights.frozen("conv", (4, 6), dtype)
    np.testing.assert_array_equal(
        merged.rows(1, 4, np.empty((3, 6), dtype)),
        tensors["conv"].double().numpy().reshape(4, 6)[1:].astype(dtype),
    )
    ready = (
        keep and torch.empty(0, dtype=stored).numpy().dtype == dtype if stored != torch.bfloat16 else False
    )
    assert (w.whole is not None) == ready
    weights.close()


def test_int8_with_scales(tmp_path: Path) -> None:
    codes = torch.randint(-127, 128, (6, 4), dtype=torch.int8)
    scales = torch.rand(6)
    save_file(
        {
            "w": codes,
            "w.scale": scales,
            "bad": codes.clone(),
            "bad.scale": scales[:5].clone(),
            "alone": codes.clone(),
        },
        tmp_path / "q",
    )
    with Weights(tmp_path / "q", keep=True) as weights:
        out = np.empty((6, 4), np.float32)
        weights.frozen("w").read(out)
        np.testing.assert_allclose(out, codes.numpy() * scales.numpy()[:, None], rtol=1e-7)
        with pytest.raises(WireError, match="one per row"):
            weights.frozen("bad")
        with pytest.raises(WireError, match=r"no tensor alone.scale"):
            weights.frozen("alone")


HOSTILE = [
    ({"a": entry(0, 8), "b": entry(4, 12)}, 12, "overlap"),
    ({"a": entry(0, 8), "b": entry(0, 8)}, 8, "overlap"),
    ({"a": entry(0, 4), "b": entry(8, 12)}, 12, "gaps"),
    ({"a": entry(4, 8)}, 8, "gaps"),
    ({"a": entry(0, 8)}, 4, "the file at"),
    ({"a": entry(0, 8)}, 12, "the file at"),
    ({"a": entry(8, 0, [])}, 8, "by its data_offsets"),
    ({"a": entry(-8, 0, [2])}, 8, "data_offsets"),
    ({"a": entry(0, 8, [1 << 62])}, 8, "whole numbers"),
    ({"a": entry(0, 8, [1 << 40, 1 << 40])}, 8, "by its shape"),
    ({"a": entry(0, 8, [-2])}, 8, "whole numbers"),
    ({"a": entry(0, 8, [2.0])}, 8, "whole numbers"),
    ({"a": entry(0, 8, [True, 2])}, 8, "whole numbers"),
    ({"a": entry(0, 8, "22")}, 8, "whole numbers"),
    ({"a": entry(0, 8, [1] * 20 + [2])}, 8, "at most"),
    ({"a": entry(0, 8, [2], "F4")}, 8, "dtype"),
    ({"a": entry(0, 8, [2], ["F32"])}, 8, "dtype"),
    ({"a": {"dtype": "F32", "shape": [2]}}, 8, "data_offsets"),
    ({"a": {**entry(0, 8), "code": "x"}}, 8, "nothing else"),
    ({"a": 3}, 0, "must say"),
    ([], 0, "must be an object"),
    (b"{ ", 0, "no JSON"),
    (b"\xff\xfe", 0, "no JSON"),
    (b"[" * 100_000, 0, "no JSON"),
    (
        b'{"a":' + json.dumps(entry(0, 4)).encode() + b',"a":' + json.dumps(entry(4, 8)).encode() + b"}",
        8,
        "twice",
    ),
    (
        b'{"a": {"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}',
        8,
        "no JSON|whole numbers",
    ),
]


@pytest.mark.parametrize(("entries", "data", "reason"), HOSTILE)
@pytest.mark.parametrize("keep", [True, False])
def test_hostile_headers_are_one_line(
    tmp_path: Path, entries: Any, data: int, reason: str, keep: bool
) -> None:
    with pytest.raises(WireError, match=reason) as caught:
        Weights(header(tmp_path / "file", entries, data), keep=keep)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("length", [0, 1, 100, MOST_HEADER, MOST_HEADER + 1, (1 << 64) - 1])
def test_hostile_lengths(tmp_path: Path, length: int) -> None:
    with pytest.raises(WireError, match="no safetensors file"):
        Weights(header(tmp_path / "file", {"a": entry(0, 4)}, 4, length=length), keep=False)


@pytest.mark.parametrize("content", [b"", b"1234567", b"\x02\0\0\0\0\0\0\0"])
def test_short_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(WireError, match="no safetensors file"):
        Weights(tmp_path / "file", keep=True)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "file"
    save_file({"a": torch.ones(3, 2), "b": torch.zeros(4)}, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(
        bytes(content[: data.draw(st.integers(0, len(content)))]) if data.draw(st.booleans()) else content
    )
    try:
        weights = Weights(path, keep=False)
    except WireError as error:
        assert "\n" not in str(error).strip()
        return
    with weights:
        for name, found in weights.entries.items():
            assert math.prod(found.shape) * found.stored.itemsize == found.nbytes
            if found.stored.dtype == "float32":
                weights.frozen(name).read(np.empty(found.shape, np.float32))


def test_other_shapes_and_names_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3, 2)}, tmp_path / "file")
    with Weights(tmp_path / "file", keep=False) as weights:
        with pytest.raises(WireError, match=r"\[3, 2\], the graph asks for \[7\]"):
            weights.frozen("a", (7,))
        with pytest.raises(WireError, match="no tensor b"):
            weights.frozen("b")
        with pytest.raises(WireError, match="row 3"):
            weights.frozen("a").take(np.array([3]), np.empty((1, 2), np.float32))


def test_a_file_that_shrinks_is_reported(tmp_path: Path) -> None:
    save_file({"a": torch.ones(300, 2)}, tmp_path / "file")
    with Weights(tmp_path / "file", keep=False) as weights, pytest.raises(WireError, match="shorter"):
        os.truncate(tmp_path / "file", 1000)
        weights.frozen("a").read(np.empty((300, 2), np.float32))
