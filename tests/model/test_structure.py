"""Models of no known family: split by their structure they are the whole model, or they are refused."""

from __future__ import annotations

import pytest
import torch
import transformers
from peft import PeftModel

import sflam
from sflam import config
from sflam.errors import ModelError
from sflam.model.adapters import attach, save, state_of
from sflam.model.backbone import Backbone, wrap
from sflam.model.families import CAUSAL, FAMILIES, SEQUENCE
from sflam.model.lora import Rows
from sflam.model.loss import group_losses
from sflam.model.settings import ModelSettings
from sflam.model.split import Arrival, split
from sflam.model.structure import family_of
from sflam.model.verify import expect_equal, tolerance, verify
from tests.conftest import assert_refused
from tests.learn.builders import IDENTITY, LEARN, adapted, assert_equal_states, local_fleet, parts_of, run
from tests.learn.plain_loop import PlainLoop
from tests.learn.test_federated import UNCLIPPED, plain_training
from tests.model.test_split import gradients, perturb_adapters, run_whole
from tests.tiny import DEPTH, STRANGERS, batch, is_lm, largest_difference, tiny, whole_arguments

CUTS = range(DEPTH + 1)


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_model_split_by_its_structure_is_the_whole_model(kind):
    """Ragged rows for texts; every cut."""
    backbone = tiny(kind)
    assert backbone.family.gates and backbone.family.name not in FAMILIES
    found = list(verify(backbone, CUTS))
    assert [item.cut for item in found] == list(CUTS)
    assert max(item.largest for item in found) <= tolerance(backbone)
    assert max(item.largest for item in verify(tiny(kind), [1], perturb=1e-3)) > tolerance(backbone)


@pytest.mark.parametrize("labels", ["server", "device"])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("kind", ["electra", "msn", "phi"])
def test_it_is_so_with_dropout_and_labels_at_home(kind, cut, labels):
    """The passes of stand-ins draw no dropout that the true pass would see."""
    backbone = tiny(kind, dropout=0.3)
    model = attach(backbone, ModelSettings(rank=2, dropout=0.3))
    perturb_adapters(model)
    model.train()
    device, server = split(backbone, model, [cut], labels=labels)
    device.train(), server.train()
    one, rows = batch(kind), Rows((0,), (5,))
    torch.manual_seed(3)
    hidden = device(one["inputs"], one["lengths"], cut, rows)
    exchange = hidden.detach().requires_grad_()
    torch.manual_seed(11)
    out = server([Arrival(cut, exchange, rows)], one["lengths"])
    logits = device.finish(out, one["lengths"], rows) if labels == "device" else out
    (loss,) = group_losses(SEQUENCE, logits, one["labels"], (5,))
    torch.manual_seed(3)
    whole_hidden, whole_loss = run_whole(backbone, model, one, cut, reseed=11)
    assert largest_difference(loss, whole_loss) < 1e-9
    valid = slice(None) if one["lengths"] is None else torch.arange(9)[None, :] < one["lengths"][:, None]
    assert largest_difference(hidden[valid], whole_hidden[valid]) < 1e-9
    tensors = server.stack.tensors
    found = torch.autograd.grad(loss, [exchange, *tensors.values()], allow_unused=True)
    expected = gradients(model, tensors)
    for name, gradient in zip(tensors, found[1:], strict=True):
        assert largest_difference(gradient[0], expected[name]) < 1e-9, name
    if cut:
        assert largest_difference(found[0][valid], whole_hidden.grad[valid]) < 1e-9


@pytest.mark.parametrize("kind", ["electra", "msn", "opt-lm"])
@pytest.mark.parametrize("cut", [0, 1, 3])
def test_training_it_on_one_device_is_plain_peft_training(kind, cut):
    backbone, model, examples = adapted(kind)
    (part,) = parts_of([22])
    expected = plain_training(model, examples, part, UNCLIPPED, 2)
    fleet = local_fleet(backbone, model, examples, [part], cut=cut, learn=UNCLIPPED)
    assert_equal_states(run(fleet, state_of(model), 2)[1], expected, 1e-5 if is_lm(kind) else 1e-9)


@pytest.mark.parametrize("kind", ["electra", "opt"])
def test_devices_with_different_cuts_equal_a_plain_loop(kind):
    backbone, model, examples = adapted(kind)
    parts, cuts = parts_of([9, 14, 6]), (2, 0, 3)
    fleet = local_fleet(backbone, model, examples, parts, cuts=cuts)
    loop = PlainLoop(
        backbone,
        model,
        examples,
        parts,
        cuts=cuts,
        settings=fleet.settings,
        learn=LEARN,
        quant=IDENTITY,
        seed=3,
    )
    for number in range(2):
        loop.round(number)
    assert_equal_states(run(fleet, state_of(model), 2)[1], loop.state)


def test_each_side_holds_its_own_blocks_and_the_head_is_the_labels_side():
    backbone = tiny("msn")
    model = attach(backbone, ModelSettings(rank=2))
    device, server = split(backbone, model, [1])
    assert len(device.blocks) == 1 and len(server.blocks) == DEPTH - 1
    assert not any(
        "classifier" in name or "layernorm.w" in name for name, _ in device.parts.named_parameters()
    )
    assert not any("classifier" in name for name in device.stack.slots)
    assert {"classifier.weight"} <= {name.removeprefix("base_model.model.") for name in server.stack.slots}
    sizes = {n: p.numel() for n, p in tiny("msn").model.named_parameters()}
    front = sum(n for name, n in sizes.items() if "embeddings" in name)
    block = sum(n for name, n in sizes.items() if ".layers.0." in name)
    assert sum(p.numel() for p in device.parameters()) == front + block


def test_its_adapter_loads_in_plain_peft(tmp_path):
    _, model, _ = adapted("electra")
    one = batch("electra")
    save(model, tmp_path)
    again = PeftModel.from_pretrained(tiny("electra").model, str(tmp_path)).eval()
    expected = model.eval()(**whole_arguments(one)).logits
    assert torch.equal(again(**whole_arguments(one)).logits, expected)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("albert", "the 1 entries of albert.encoder.albert_layer_groups are run 3 times.*layers are shared"),
        ("swin", "its blocks change the shape of what passes"),
        ("bart", "it has an encoder and a decoder"),
        ("opt-drop", "layerdrop = 0.5 leaves blocks out at random"),
    ],
)
def test_what_its_structure_cannot_show_is_refused(kind, reason):
    with pytest.raises(ModelError, match=rf"model class \w+ is in no known family.*{reason}.*use a model of"):
        tiny(kind)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_is_not_equal_is_refused_and_left_as_it_was(dtype):
    """One convolution of this model reads the embedding again after the first block."""
    backbone = tiny("deberta", dtype=dtype)
    model = attach(backbone, ModelSettings(rank=2))
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    with pytest.raises(
        ModelError, match=r"DebertaV2.*at cut 0 it is not the same.*gradients by.*use a model of"
    ):
        expect_equal(backbone, model, [0, 1])
    after = backbone.model.state_dict()
    assert all(
        torch.equal(after[name], tensor) and after[name].dtype == tensor.dtype
        for name, tensor in before.items()
    )


def test_the_check_runs_in_float64_on_a_float32_model():
    backbone = tiny("electra", dtype=torch.float32)
    assert expect_equal(backbone, attach(backbone, ModelSettings(rank=2)), [1]) < 1e-9
    assert backbone.model.dtype == torch.float32


def test_a_broken_split_is_refused_before_training(monkeypatch):
    """Forgetting the padding changes the activations of a model split by its structure."""
    from sflam.model import block_stubs

    honest = block_stubs.stand_in
    monkeypatch.setattr(
        block_stubs, "stand_in", lambda model, rows, width, padding: honest(model, rows, width, None)
    )
    backbone = tiny("electra")
    with pytest.raises(ModelError, match="it is not the same model: it differs in"):
        expect_equal(backbone, attach(backbone, ModelSettings(rank=2)), [1])


def test_a_block_that_mixes_devices_is_refused(monkeypatch):
    """Each device alone may be right where two side by side are not: the check runs two."""
    backbone = tiny("opt")
    block = type(backbone.model.model.decoder.layers[0])
    honest = block.forward

    def turned(self, hidden_states, *args, **kwargs):
        linear = self.fc1

        def transposed(x):
            rows = x.unflatten(0, hidden_states.shape[:2]) if x.ndim == 2 else x
            out = linear(rows.transpose(0, 1).contiguous()).transpose(0, 1)
            return out.flatten(0, 1) if x.ndim == 2 else out

        self.__dict__["fc1"] = transposed
        try:
            return honest(self, hidden_states, *args, **kwargs)
        finally:
            del self.__dict__["fc1"]

    monkeypatch.setattr(block, "forward", turned)
    model = attach(backbone, ModelSettings(rank=2))
    with pytest.raises(ModelError, match=r"it is not the same model|cannot be run split"):
        expect_equal(backbone, model, [0])


def test_verify_shows_it_and_refuses_in_one_line_what_cannot_be_run(cli, tmp_path, monkeypatch):
    tiny("msn", dtype=torch.float32).model.save_pretrained(tmp_path)
    assert cli("verify", tmp_path).code == 0
    from sflam.model import block_stubs

    monkeypatch.setattr(block_stubs.Gate, "forward", lambda *_, **__: None)
    assert_refused(
        cli("verify", tmp_path), r"model class ViTMSN\w+ is in no known family and cannot be run split"
    )


def test_a_masked_language_model_is_no_causal_one():
    assert CAUSAL not in family_of("electra").tasks and CAUSAL in family_of("opt").tasks
    with pytest.raises(ModelError, match="'sam' is in no known family, and transformers has no class of it"):
        family_of("sam")


def test_a_class_without_a_task_is_refused():
    model = transformers.ElectraForTokenClassification(tiny("electra").model.config)
    with pytest.raises(ModelError, match="ElectraForTokenClassification is not supported"):
        wrap(model)


def test_a_job_says_how_the_model_was_split(tmp_path):
    backbone: Backbone = tiny("msn", dtype=torch.float32)
    backbone.model.save_pretrained(tmp_path / "msn")
    short = ["learn.rounds=1", "learn.local_steps=1", "fleet.devices=2", "learn.device=cpu", "model.rank=2"]
    job = config.load(None, [*short, f'model.name="{tmp_path / "msn"}"', "model.cut=2"])
    run = sflam.start(job, tmp_path / "run")
    assert any(
        note.startswith("model class ViTMSNForImageClassification is in no known family; it was split by its")
        for note in run.assembly.notes
    )
    (record,) = run.rounds()
    assert record.bytes_up > 0
    assert sflam.predict(run.finish().run_dir).accuracy == record.accuracy
