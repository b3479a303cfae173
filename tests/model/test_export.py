"""A device built from what it was sent alone computes what the whole model's device half computes."""

from __future__ import annotations

import pytest
import torch

from sflam.errors import ModelError
from sflam.model.adapters import attach
from sflam.model.export import backbone_from, device_tensors, put_adapters
from sflam.model.lora import Rows
from sflam.model.settings import ModelSettings
from sflam.model.split import DeviceSegment
from tests.learn.builders import adapted
from tests.tiny import DEPTH

SETTINGS = ModelSettings(rank=2)


def received(folder, backbone, tensors, cut, labels, **options):
    backbone.model.config.save_pretrained(folder)
    return backbone_from(
        str(folder), tensors, task=backbone.task, dtype="float64", fresh=backbone.fresh, cut=cut, labels=labels,
        device=torch.device("cpu"), **options,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["vit", "bert", "gpt2", "llama", "distilbert"])
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
