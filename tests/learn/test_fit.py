"""The memory estimate: against what autograd really saves, and against hand arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import sflam
from sflam import config
from sflam.cost.memory import Memory, activations, kept
from sflam.learn import fit as fitting
from sflam.learn.central import Central
from sflam.learn.fit import Fit, built_step, fit, free_bytes
from sflam.learn.settings import FleetSettings
from sflam.model.adapters import attach, state_of
from sflam.model.built import token_shape
from sflam.model.lora import Rows
from sflam.model.settings import ModelSettings
from sflam.model.split import Arrival
from sflam.plan import ALL_LOCAL
from tests.learn.builders import LEARN, adapted, local_fleet, parts_of
from tests.run.saved_bytes import saved_bytes
from tests.tiny import DEPTH, EVERY_KIND, STRANGERS, WIDTH, batch, is_image, is_lm, tiny

FACTOR = 1.5
"""How far the estimate of activations may be off, either way."""

FULL_OF_TIES = {"gpt2-lm", "llama-lm", "gemma-lm", "opt-lm", "gemma2-lm", "gemma3-lm", "beit-relative"}
BATCH, TOKENS, CUT = 5, 20, 2


def estimated(kind, trainable, checkpointing=False):
    """Return the fit of one device cut at 2, and its segments on a batch of full rows, in float32."""
    backbone = tiny(kind, dtype=torch.float32)
    model = attach(backbone, ModelSettings(rank=4, trainable=trainable))
    learn = replace(LEARN, batch=BATCH, checkpointing=checkpointing)
    fleet = local_fleet(
        backbone, model, adapted(kind, dtype=torch.float32)[2], parts_of([BATCH]), cut=CUT, learn=learn
    )
    one = batch(kind, rows=BATCH, tokens=TOKENS, full=True)["inputs"]
    inputs = {name: t.float() if t.is_floating_point() else t for name, t in one.items()}
    sample = {name: t[:1] for name, t in inputs.items()}
    step = built_step(backbone, token_shape(backbone, sample)[0], learn)
    return step, fleet, fit(fleet, backbone, sample, 0 if is_image(kind) else TOKENS, learn), inputs


@pytest.mark.parametrize("trainable", ["lora", "full"])
@pytest.mark.parametrize("kind", [*EVERY_KIND, *STRANGERS])
def test_what_is_kept_is_estimated_within_the_stated_factor(kind, trainable):
    if trainable == "full" and kind in FULL_OF_TIES:
        pytest.skip("a tied weight would stand on both sides")
    step, fleet, found, inputs = estimated(kind, trainable)
    device, server = fleet.devices.segment, fleet.servers.trunks[0].segment
    weights = [*fleet.model.parameters(), *fleet.model.buffers(), device.stack.values, server.stack.values]
    rows = Rows((0,), (BATCH,))
    hidden = device(inputs, None, CUT, rows).detach().requires_grad_()
    held = saved_bytes(lambda: device(inputs, None, CUT, rows), weights)
    assert held / FACTOR < kept(step, 0, CUT) < held * FACTOR
    assert found.device.activations == activations(step, range(CUT), head=False)
    if not is_lm(kind):
        held = saved_bytes(lambda: server([Arrival(CUT, hidden, rows)], None), weights)
        assert held / FACTOR < kept(step, CUT, DEPTH) < held * FACTOR
        assert found.server.activations == activations(step, range(CUT, DEPTH), head=True)


@pytest.mark.parametrize("kind", ["vit", "electra"])
def test_checkpointing_keeps_every_block_s_input_and_one_block_s_inside(kind):
    step, _, plain, _ = estimated(kind, "lora")
    _, _, less, _ = estimated(kind, "lora", checkpointing=True)
    entering = CUT * BATCH * step.tokens * WIDTH * 4
    assert plain.device.activations - less.device.activations == kept(step, 0, 1) - entering > 0


def test_weights_and_training_are_counted_on_the_built_model():
    """One vit block, its embedding, and LoRA of rank 4; AdamW keeps two moments beside value and gradient."""
    _, fleet, found, _ = estimated("vit", "lora")
    plain = tiny("vit").model
    front = sum(p.numel() for p in plain.vit.embeddings.parameters())
    block = sum(p.numel() for p in plain.vit.layers[0].parameters())
    assert found.device.weights == 4 * (front + CUT * block)
    adapters = 4 * (4 * (WIDTH + WIDTH) + 2 * (WIDTH + 48)) * CUT
    assert fleet.devices.segment.stack.size() == adapters and found.device.trained == 4 * 4 * adapters
    norm = sum(p.numel() for p in plain.vit.layernorm.parameters())
    assert found.server.weights == 4 * (block + norm)
    assert found.process.weights == 4 * sum(p.numel() for p in fleet.backbone.model.parameters())
    assert found.process.activations == found.device.activations + found.server.activations


@pytest.mark.parametrize(
    ("change", "copies"), [({"optimizer": "sgd"}, 2), ({"optimizer": "sgd", "momentum": 0.9}, 3), ({}, 4)]
)
def test_optimisers_keep_what_they_keep(change, copies):
    backbone, model, examples = adapted("vit", dtype=torch.float32)
    learn = replace(LEARN, **change)
    fleet = local_fleet(backbone, model, examples, parts_of([8, 8]), learn=learn)
    found = fit(fleet, backbone, examples.take(parts_of([1])[0]).inputs, 0, learn)
    assert found.server.trained == copies * 4 * fleet.servers.trunks[0].segment.stack.values.numel()


def test_a_sequential_server_holds_one_device_at_a_time_and_selected_devices_count():
    backbone, model, examples = adapted("vit", dtype=torch.float32)
    sample = examples.take(parts_of([1])[0]).inputs
    found = {}
    for name, learn, selected in (
        ("v1", LEARN, 0),
        ("some", LEARN, 2),
        ("turns", replace(LEARN, method="sfl-v2"), 0),
    ):
        fleet = local_fleet(backbone, model, examples, parts_of([8] * 4), learn=learn, selected=selected)
        found[name] = fit(fleet, backbone, sample, 0, learn).server.activations
    assert found["v1"] == 2 * found["some"] == 4 * found["turns"]


def test_weights_of_whole_layers_are_training_not_frozen():
    _, fleet, found, _ = estimated("vit", "full")
    assert found.device.weights == found.server.weights == 0
    numbers = sum(p.numel() for p in fleet.backbone.model.parameters())
    assert found.device.trained + found.server.trained == 4 * 4 * numbers


def test_central_is_one_machine():
    backbone, model, examples = adapted("bert", dtype=torch.float32)
    settings = FleetSettings(devices=1)
    central = Central(model, examples, parts_of([9]), settings=settings, learn=LEARN, seed=3)
    found = fit(central, backbone, examples.take(parts_of([1])[0]).inputs, 10, LEARN)
    assert found.device is None and found.server == found.process
    assert "on a device" not in found.notes()[0]


def test_a_run_that_will_not_fit_is_warned_of():
    small, large = Memory(1, 2, 3), Memory(10**9, 2 * 10**9, 3 * 10**9)
    assert (
        len(Fit(small, small, small, free=7).notes()) == len(Fit(small, small, large, free=None).notes()) == 1
    )
    note, warning = Fit(small, small, large, free=5 * 10**9).notes()
    assert note.endswith("6.00 GB here of 5.00 GB free")
    assert warning.startswith(
        "it may not fit: this run needs 6.00 GB here, but 5.00 GB are free; set learn.check"
    )


def test_free_memory_is_the_smaller_of_machine_and_container(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable:   500 kB\n")
    (tmp_path / "max").write_text("300000\n")
    (tmp_path / "used").write_text("100000\n")
    monkeypatch.setattr(fitting, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(fitting, "LIMITS", ((tmp_path / "max", tmp_path / "used"),))
    cpu = torch.device("cpu")
    assert free_bytes(cpu) == 200000
    (tmp_path / "max").write_text("max\n")
    assert free_bytes(cpu) == 500 * 1024
    monkeypatch.setattr(fitting, "MEMINFO", tmp_path / "nowhere")
    assert free_bytes(cpu) is None


def test_a_run_says_it_before_it_starts_and_in_its_result(small, tmp_path):
    run = sflam.start(config.load(None, small), tmp_path / "run")
    assert any(note.startswith("memory, estimated: ") for note in run.assembly.notes)
    for _ in run.rounds():
        pass
    result = run.finish()
    assert result.device_memory == run.assembly.fit.device.total > 0
    assert result.server_memory == run.assembly.fit.server.total > result.device_memory


def test_a_device_that_trains_alone_needs_what_the_whole_model_does():
    backbone, model, examples = adapted("vit", dtype=torch.float32)
    sample = examples.take(parts_of([1])[0]).inputs
    found = {}
    for name, servers in (
        ("served", (0, 0, 0)),
        ("mixed", (0, ALL_LOCAL, ALL_LOCAL)),
        ("alone", (ALL_LOCAL,) * 3),
    ):
        fleet = local_fleet(backbone, model, examples, parts_of([8] * 3), cuts=(1, 1, 1), servers=servers)
        found[name] = fit(fleet, backbone, sample, 0, LEARN)
    whole = found["alone"].device
    halves = found["served"].device.weights + found["served"].server.weights
    assert whole.weights == halves and whole == found["mixed"].device
    assert whole.total > found["served"].device.total and found["alone"].server.total == 0
    trained = sum(tensor.numel() for tensor in state_of(model).values())
    assert whole.trained == 4 * 4 * trained and found["mixed"].server.total < found["served"].server.total
