"""A model written as ONNX computes what torch computes, whatever the batch."""

from __future__ import annotations

import pytest
import torch

from sflam.errors import ModelError
from sflam.model import onnx_export
from sflam.model.onnx_export import TOLERANCE, write_onnx
from tests.tiny import MODELS, tiny

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")


def written(kind, path):
    backbone = tiny(kind, dtype=torch.float32)
    return write_onnx(backbone.model, backbone.task, path, {"classes": "[]"})


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind == "bert" else pytest.mark.slow) for kind in MODELS]
)
def test_every_family_is_written_and_equal(kind, tmp_path):
    import onnx

    assert written(kind, tmp_path / "model.onnx") < TOLERANCE / 10
    found = onnx.load(tmp_path / "model.onnx")
    assert [one.name for one in found.graph.output] == ["logits"]
    shape = found.graph.input[0].type.tensor_type.shape.dim
    assert [bool(axis.dim_param) for axis in shape] == (
        [True] * 2 if len(shape) == 2 else [True] + [False] * 3
    )
    assert {one.key: one.value for one in found.metadata_props}["classes"] == "[]"


def test_a_file_that_differs_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    with pytest.raises(ModelError, match="differs from torch"):
        written("vit", tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_what_cannot_be_expressed_is_one_line(tmp_path):
    class Strange(torch.nn.Module):
        def forward(self, **inputs):
            raise RuntimeError("data-dependent\ncontrol flow")

    backbone = tiny("vit", dtype=torch.float32)
    strange = Strange()
    strange.config, strange.main_input_name = backbone.model.config, "pixel_values"
    strange.device, strange.dtype = torch.device("cpu"), torch.float32
    with pytest.raises(ModelError, match=r"Strange cannot be written as ONNX: .*control flow"):
        write_onnx(strange, "image-classification", tmp_path / "model.onnx", {})
