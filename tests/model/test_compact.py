"""Frozen matrices in fewer bytes: what is read back is what is computed with, by every reader."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sflam.device.weights import Weights
from sflam.errors import ModelError
from sflam.model.adapters import attach
from sflam.model.compact import SCALE, compact, expanded, round_device_half, rounded
from sflam.model.export import device_tensors
from sflam.model.settings import ModelSettings
from tests.tiny import tiny

FORMATS = ("float32", "float16", "int8")
SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5)
NUMBERS = (
    st.floats(-1e5, 1e5, width=32)
    | st.floats(-(2.0**-90), 2.0**-90, width=32)
    | st.sampled_from([0.0, 2.0**127, -(2.0**127)])
)


@settings(max_examples=200, deadline=None)
@given(
    array=arrays.arrays(np.float32, SHAPES, elements=NUMBERS),
    weights=st.sampled_from(FORMATS),
    double=st.booleans(),
)
def test_what_is_read_back_is_exact_and_written_again_the_same(array, weights, double):
    tensor = torch.from_numpy(array).to(torch.float64 if double else torch.float32)
    stored = compact({"x": tensor}, weights)
    read = expanded(stored, tensor.dtype)
    assert read.keys() == {"x"} and read["x"].dtype == tensor.dtype
    assert torch.equal(read["x"], rounded(tensor, weights))
    again = compact(read, weights)
    assert again.keys() == stored.keys() and all(torch.equal(again[name], stored[name]) for name in stored)
    largest = tensor.abs().flatten(1).amax(1) if tensor.dim() > 1 else tensor.abs()
    error = (read["x"] - tensor).abs().reshape(len(tensor), -1).amax(1)
    if weights == "int8" and x_is(stored, torch.int8):  # half a step, of a scale rounded up
        assert bool((error <= largest / 127 * (0.5 + 1e-4) + 2.0**-100).all())
    elif x_is(stored, torch.float16):
        assert bool((error <= largest * 2.0**-11 + 2.0**-25).all())
    else:
        assert torch.equal(read["x"], tensor)


def x_is(stored, dtype):
    return stored["x"].dtype == dtype


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weights", FORMATS)
def test_a_device_without_torch_reads_the_same_numbers(tmp_path, weights, dtype):
    draw = torch.Generator().manual_seed(0)
    made = {
        "wide": torch.randn(7, 9, generator=draw),
        "patches": torch.randn(5, 3, 2, 2, generator=draw),
        "places": torch.randn(1, 6, 4, generator=draw),
        "bias": torch.randn(7, generator=draw),
        "huge": torch.full((2, 2), 1e30),
    }
    tensors = {name: tensor.to(getattr(torch, dtype)) for name, tensor in made.items()}
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file(compact(tensors, weights), path)
    wanted = expanded(safetensors.torch.load_file(path), getattr(torch, dtype))
    for keep in (True, False):
        with Weights(path, keep=keep) as held:
            for name, tensor in wanted.items():
                flat = tensor.flatten(1) if tensor.dim() > 1 and len(tensor) > 1 else tensor
                found = held.frozen(name, tuple(flat.shape), dtype)
                out = np.empty(found.shape, found.dtype)
                found.read(out)
                assert np.array_equal(out, flat.numpy()), name
                if weights != "float32" and name == "wide":
                    assert found.whole is None
            del found


@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize("kind", ["vit", "gpt2"])
def test_a_rounded_model_is_what_devices_read_and_nothing_else_changes(kind, weights):
    backbone = tiny(kind)
    model = attach(backbone, ModelSettings(rank=2))
    before = device_tensors(backbone, model, 2, "server")
    beyond = [tensor.clone() for tensor in list(model.parameters())]
    round_device_half(backbone, 1, "server", weights)
    after = device_tensors(backbone, model, 1, "server")
    for name, tensor in expanded(compact(after, weights), torch.float64).items():
        assert torch.equal(tensor, after[name]), name
        assert torch.equal(tensor, rounded(before[name], weights)), name
    moved = sum(not torch.equal(a, b) for a, b in zip(beyond, model.parameters(), strict=True))
    matrices = sum(tensor.dim() > 1 and len(tensor) > 1 for tensor in after.values())
    assert moved == (matrices if weights != "float32" else 0)
    if weights == "int8":
        size = {name: t.numel() * t.element_size() for name, t in compact(after, weights).items()}
        assert sum(size.values()) < 0.35 * sum(t.numel() * t.element_size() for t in after.values())


def test_levels_without_scales_are_refused():
    stored = compact({"x": torch.randn(3, 4)}, "int8")
    with pytest.raises(ModelError, match="no scale per row"):
        expanded({"x": stored["x"]}, torch.float32)
    with pytest.raises(ModelError, match="no scale per row"):
        expanded(stored | {f"x{SCALE}": torch.ones(2)}, torch.float32)
