"""A device's state: whole or absent, without pickle, and what is damaged is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from sflam.errors import RunError
from sflam.link import state

PLAIN = {"run": 'a "sha256":"x', "step": 3, "loss": float("inf")}


def arrays() -> dict[str, Any]:
    draw = np.random.default_rng(0)
    return {
        "half/values": draw.normal(size=1000).astype(np.float32),
        "optimizer/step": np.array(4.0, np.float32),
        "wide": draw.normal(size=(3, 5)),
        "turned": draw.normal(size=(6, 4)).T,
        "counts": np.arange(7, dtype=np.int64),
        "some": np.array([True, False]),
        "none": np.empty((0, 4), np.uint8),
    }


def same(found: dict[str, Any]) -> bool:
    wanted = arrays()
    return found.keys() == wanted.keys() and all(
        found[name].dtype == array.dtype and np.array_equal(found[name], array)
        for name, array in wanted.items()
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    assert state.load(path) is None
    state.save(path, PLAIN, arrays())
    found = state.load(path)
    assert found is not None and found[0] == PLAIN and same(found[1])
    assert same(safetensors.numpy.load_file(path))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("at", [0, 9, 60, 500, -1, -4000])
def test_a_flipped_bit_is_found(tmp_path: Path, at: int) -> None:
    path = tmp_path / "state.safetensors"
    state.save(path, PLAIN, arrays())
    body = bytearray(path.read_bytes())
    body[at] ^= 4
    path.write_bytes(body)
    with pytest.raises(RunError, match=r"is damaged .* delete it"):
        state.load(path)


@pytest.mark.parametrize("size", [0, 5, 8, 40, 5000])
def test_a_file_cut_short_is_found(tmp_path: Path, size: int) -> None:
    path = tmp_path / "state.safetensors"
    state.save(path, PLAIN, arrays())
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(RunError, match="is damaged"):
        state.load(path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_refuses_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "state.safetensors"
    state.save(path, PLAIN, arrays())
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(RunError, match=r"No space left.*choose another --folder"):
            state.save(path, {"run": "b"}, {})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
