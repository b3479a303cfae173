"""A device built from what it was sent alone computes what the whole model's device half computes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sflam.errors import ModelError
from sflam.model.adapters import attach
from sflam.model.export import backbone_from, device_tensors, put_adapters
from sflam.model.layout import layout_from
from sflam.model.lora import Rows
from sflam.model.settings import ModelSettings
from sflam.model.split import DeviceSegment
from sflam.model.structure import layout_of
from tests.learn.builders import adapted
from tests.tiny import DEPTH

SETTINGS = ModelSettings(rank=2)
KNOWN = ("vit", "bert", "gpt2", "llama", "distilbert")
STRUCTURED = ("electra", "opt", "opt-lm", "msn", "phi")


def received(folder, backbone, tensors, cut, labels, **options):
    backbone.model.config.save_pretrained(folder)
    return backbone_from(
        str(folder), tensors, task=backbone.task, dtype="float64", fresh=backbone.fresh, cut=cut, labels=labels,
        device=torch.device("cpu"), layout=layout_of(backbone.family, backbone.task), **options,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [*KNOWN, *STRUCTURED])
@pytest.mark.parametrize(("cut", "labels"), [(0, "server"), (1, "device"), (DEPTH, "server")])
@pytest.mark.parametrize("frozen", ["frozen_a", "frozen_half"])
def test_the_sent_part_computes_what_the_whole_does(tmp_path, kind, cut, labels, frozen):
    backbone, model, examples = adapted(kind)
    tensors = device_tensors(backbone, model, cut, labels, **{frozen: True})
    own = DeviceSegment(backbone, cut, 1, labels=labels, **{frozen: True})
    other = received(tmp_path, backbone, tensors, cut, labels)
    wrapped = attach(other, SETTINGS)
    put_adapters(wrapped, tensors)
    sent = DeviceSegment(other, cut, 1, labels=labels, **{frozen: True})
    assert sent.names() == own.names()
    sent.stack.write(0, own.stack.read(0))
    batch = examples.take(torch.arange(4).numpy())
    rows = Rows((0,), (4,))
    hidden = own(batch.inputs, batch.lengths, cut, rows)
    assert torch.equal(hidden, sent(batch.inputs, batch.lengths, cut, rows))
    if labels == "device":
        found = [segment.finish(hidden, batch.lengths, rows) for segment in (own, sent)]
        assert torch.equal(*found)


def test_what_was_not_sent_takes_no_memory(tmp_path):
    backbone, model, _ = adapted("vit")
    other = received(tmp_path, backbone, device_tensors(backbone, model, 1, "server"), 1, "server")
    kept = sum(p.numel() for p in other.model.parameters() if not p.is_meta)
    assert kept < sum(p.numel() for p in other.model.parameters()) / 2


def test_a_segment_of_another_cut_or_model_is_refused(tmp_path):
    backbone, model, _ = adapted("vit")
    tensors = device_tensors(backbone, model, 1, "server")
    for wrong, message in (
        (dict(list(tensors.items())[1:]), "lacks"),
        (tensors | {"vit.nothing": torch.zeros(1)}, "does not have"),
        ({name: tensor[:1] for name, tensor in tensors.items()}, "shape"),
    ):
        with pytest.raises(ModelError, match=message):
            received(tmp_path, backbone, wrong, 1, "server")


@pytest.mark.parametrize("cut", [0, 1])
def test_of_a_model_split_by_its_structure_other_blocks_and_the_head_are_not_sent(cut):
    backbone, model, _ = adapted("electra")
    sent = device_tensors(backbone, model, cut, "server")
    blocks = {name.split(".layer.")[1].partition(".")[0] for name in sent if ".layer." in name}
    assert blocks == set(map(str, range(cut)))
    assert not any("classifier" in name for name in sent) and any("embeddings" in name for name in sent)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"blocks": "encoder"}, "is no list of blocks"),
        ({"blocks": "encoder.nothing"}, "does not have"),
        ({"head": ("nothing",)}, "does not have"),
        ({"front": ("encoder.layer",)}, "is no list of blocks"),
        ({"front": ("encoder.layer.0",)}, "is no list of blocks"),
    ],
)
def test_a_layout_of_another_model_is_refused(tmp_path, changed, message):
    backbone, model, _ = adapted("electra")
    tensors, layout = device_tensors(backbone, model, 1, "server"), layout_of(backbone.family, backbone.task)
    backbone.model.config.save_pretrained(tmp_path)
    options = {"task": backbone.task, "dtype": "float64", "fresh": (), "cut": 1, "labels": "server"}
    for wrong, reason in ((replace(layout, **changed), message), (None, "does not say where its parts are")):
        with pytest.raises(ModelError, match=reason):
            backbone_from(str(tmp_path), tensors, device=torch.device("cpu"), layout=wrong, **options)


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": True},
        {"width": -1},
        {"width": 10**13},
        {"base": 3},
        {"base": "__class__"},
        {"head": [1]},
        {"front": "a"},
        {"more": 1},
    ],
)
def test_a_layout_that_is_none_is_refused(wrong):
    backbone, _, _ = adapted("electra")
    layout = layout_of(backbone.family, backbone.task)
    assert layout_from(layout.as_json()) == layout and layout_from(None) is None
    for found in ([], {}, {"width": 1}, layout.as_json() | wrong):
        with pytest.raises(ModelError, match="use the same version on both sides"):
            layout_from(found)


def test_adapters_that_the_model_does_not_have_are_refused():
    _, model, _ = adapted("vit")
    with pytest.raises(ModelError, match=r"holds base_model\.model\.nothing.*join again"):
        put_adapters(model, {"base_model.model.nothing": torch.zeros(1)})
