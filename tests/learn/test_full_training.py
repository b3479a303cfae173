"""``trainable = "full"``: every weight of both halves is trained, and the split model is the whole one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import sflam
from sflam import config
from sflam.errors import ModelError
from sflam.learn.central import Central
from sflam.learn.settings import FleetSettings
from sflam.model.adapters import attach, load_state, state_of
from sflam.model.settings import ModelSettings
from sflam.model.split import split
from sflam.model.verify import expect_equal, tolerance, verify
from tests.conftest import assert_refused, sets
from tests.learn.builders import IDENTITY, adapted, assert_equal_states, local_fleet, parts_of, run
from tests.learn.plain_loop import PlainLoop
from tests.learn.test_federated import UNCLIPPED, plain_training
from tests.tiny import DEPTH, is_lm, tiny

FULL = ModelSettings(trainable="full")
# One clip of the whole gradient is not one clip per side; a weight nothing uses decays with its row here alone.
PLAIN = replace(UNCLIPPED, weight_decay=0.0)


def full(kind):
    """Return backbone, model and examples; nothing is random but the model itself."""
    backbone = tiny(kind)
    model = attach(backbone, FULL)
    return backbone, model, adapted(kind)[2]


@pytest.mark.parametrize(
    "kind", ["vit", "dinov2", "bert", "roberta", "gpt2", "llama", "qwen3-lm", "electra", "opt"]
)
def test_split_equals_whole_in_every_gradient(kind):
    backbone = tiny(kind)
    found = list(verify(backbone, range(DEPTH + 1), FULL))
    assert max(one.largest for one in found) <= tolerance(backbone)
    assert max(one.gradients for one in verify(tiny(kind), [0, 1], FULL, perturb=1e-2)) > tolerance(backbone)


def test_two_devices_side_by_side_have_weights_of_their_own():
    for kind in ("vit", "phi"):
        backbone = tiny(kind)
        assert expect_equal(backbone, attach(backbone, FULL), [0, 2]) < 1e-9


@pytest.mark.parametrize("kind", ["vit", "bert", "gpt2"])
@pytest.mark.parametrize("cut", [0, 1, 3])
def test_one_device_is_plain_training_of_the_whole_model(kind, cut):
    backbone, model, examples = full(kind)
    (part,) = parts_of([14])
    start = state_of(model)
    assert start.keys() == {f"base_model.model.{name}" for name, _ in tiny(kind).model.named_parameters()}
    expected = plain_training(model, examples, part, PLAIN, 2)
    fleet = local_fleet(backbone, model, examples, [part], cut=cut, learn=PLAIN)
    records, trained = run(fleet, start, 2)
    assert_equal_states(trained, expected)
    moved = [name for name in start if not torch.equal(start[name], trained[name])]
    assert len(moved) >= len(start) - 1
    assert records[0].bytes_down > 0 and records[0].aggregation_error is None


@pytest.mark.parametrize("method", ["sfl-v1", "sfl-v2"])
def test_labels_at_home_train_even_a_tied_embedding(method):
    """With labels on the device, embedding and head of a language model stand on one machine."""
    backbone, model, examples = full("gpt2-lm")
    (part,) = parts_of([14])
    learn = replace(PLAIN, method=method)
    expected = plain_training(model, examples, part, learn, 1)
    fleet = local_fleet(backbone, model, examples, [part], cut=1, learn=learn, labels="device")
    assert_equal_states(run(fleet, state_of(model), 1)[1], expected, 1e-5)


@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_devices_with_different_cuts_equal_a_plain_loop(kind):
    backbone, model, examples = full(kind)
    parts, cuts = parts_of([9, 14, 6]), (2, 0, 3)
    fleet = local_fleet(backbone, model, examples, parts, cuts=cuts, learn=PLAIN)
    options = {"settings": fleet.settings, "learn": PLAIN, "quant": IDENTITY, "seed": 3}
    loop = PlainLoop(backbone, model, examples, parts, cuts=cuts, **options)
    for number in range(2):
        loop.round(number)
    assert_equal_states(run(fleet, state_of(model), 2)[1], loop.state)


def test_a_shared_server_serves_devices_in_turn_with_one_copy():
    backbone, model, examples = full("vit")
    learn = replace(PLAIN, method="sfl-v2", server_update="batched")
    fleet = local_fleet(backbone, model, examples, parts_of([8, 12]), cuts=(1, 2), learn=learn)
    assert fleet.servers.trunks[0].segment.stack.copies == 1
    before = state_of(model)
    _, state = run(fleet, before, 1)
    name = "base_model.model.vit.layers.2.mlp.fc1.weight"
    assert not torch.equal(state[name], before[name]) and torch.isfinite(state[name]).all()


def test_central_trains_every_weight_too():
    _, model, examples = full("vit")
    parts = parts_of([14])
    learn = replace(PLAIN, method="central")
    central = Central(model, examples, parts, settings=FleetSettings(devices=1), learn=learn, seed=3)
    start = state_of(model)
    fleet = local_fleet(*full("vit"), parts, learn=PLAIN)
    records, trained = run(central, start, 1)
    assert records[0].samples == 14 and trained.keys() == run(fleet, start, 1)[1].keys()


@pytest.mark.parametrize("kind", ["llama-lm", "gpt2-lm"])
def test_a_tied_embedding_with_labels_on_the_server_is_refused(kind):
    backbone = tiny(kind)
    model = attach(backbone, FULL)
    with pytest.raises(
        ModelError, match=r'used on both sides of the cut.*"lora", or model.labels = "device"'
    ):
        split(backbone, model, [1])
    split(backbone, model, [1], labels="device")


def test_a_part_both_sides_need_is_refused():
    backbone = tiny("beit-relative")
    with pytest.raises(ModelError, match=r"shared_position_bias.* is used on both sides"):
        split(backbone, attach(backbone, FULL), [1], labels="device")


def test_what_full_training_cannot_be_combined_with_is_reported(cli, small):
    output = cli("train", *sets(*small, "model.trainable=full", "learn.aggregation=residual"))
    assert_refused(output, 'learn.aggregation = "residual" do not go together.*use learn.aggregation')


def test_a_run_leaves_a_model_and_resumes_to_the_same(small, tmp_path: Path):
    job = config.load(None, [*small, "model.trainable=full", "learn.canonical=true", "learn.state=keep"])
    result = sflam.train(job, tmp_path / "whole")
    assert not (tmp_path / "whole" / "adapter").exists()
    model = transformers.ViTForImageClassification.from_pretrained(tmp_path / "whole" / "model")
    assert result.trainable_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert result.device_parameters < result.trainable_parameters
    assert sflam.predict(tmp_path / "whole").accuracy == result.accuracy

    run = sflam.start(job, tmp_path / "cut")
    next(run.rounds())
    resumed = sflam.resume(tmp_path / "cut")
    assert len(list(resumed.rounds())) == 1
    resumed.finish()
    again = transformers.ViTForImageClassification.from_pretrained(tmp_path / "cut" / "model")
    expected = dict(model.named_parameters())
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.named_parameters())
    assert json.loads((tmp_path / "cut" / "result.json").read_text())["bytes_up"] == result.bytes_up


def test_loading_a_state_reaches_every_weight():
    _, model, _ = full("vit")
    state = {name: torch.full_like(tensor, 0.5) for name, tensor in state_of(model).items()}
    load_state(model, state)
    assert np.allclose([float(p.detach().mean()) for p in model.get_base_model().parameters()], 0.5)
    assert not is_lm("vit")
