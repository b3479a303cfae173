"""``learn.checkpointing``: the same gradients from far fewer kept activations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sflam.learn.central import Central
from sflam.learn.settings import FleetSettings
from sflam.model.adapters import attach, state_of
from sflam.model.families import blocks_of
from sflam.model.lora import Rows
from sflam.model.settings import ModelSettings
from sflam.model.split import Arrival, split
from tests.learn.builders import LEARN, adapted, assert_equal_states, local_fleet, parts_of, run
from tests.run.saved_bytes import saved_bytes
from tests.tiny import DEPTH, batch, tiny, whole_arguments

CHECKPOINTED = replace(LEARN, checkpointing=True)


@pytest.mark.parametrize("labels", ["server", "device"])
@pytest.mark.parametrize("kind", ["vit", "bert", "gpt2-lm", "llama", "electra", "opt"])
def test_training_with_it_is_training_without_it(kind, labels):
    """Different cuts, ragged batches, dropout: what is computed again is what was computed."""
    trained = []
    for learn in (LEARN, CHECKPOINTED):
        backbone, model, examples = adapted(
            kind, dropout=0.2, model_settings=ModelSettings(rank=2, dropout=0.2)
        )
        fleet = local_fleet(
            backbone, model, examples, parts_of([9, 14, 6]), cuts=(2, 0, 3), learn=learn, labels=labels
        )
        assert (
            fleet.devices.segment.checkpointing
            == fleet.servers.trunks[0].segment.checkpointing
            == learn.checkpointing
        )
        trained.append(run(fleet, state_of(model), 2)[1])
    assert_equal_states(*trained, 1e-12)


def test_it_is_so_where_several_passes_wait_for_their_backward():
    """Every device's forward is done before any backward, and each pass had its own rows."""
    trained = []
    for learn in (LEARN, CHECKPOINTED):
        backbone, model, examples = adapted("vit")
        fleet = local_fleet(backbone, model, examples, parts_of([9, 14, 6]), cuts=(1, 2, 3), learn=learn)
        trained.append(run(fleet, state_of(model), 2)[1])
    assert_equal_states(*trained, 1e-12)


def test_it_is_so_for_weights_of_whole_layers():
    trained = []
    for learn in (LEARN, CHECKPOINTED):
        backbone = tiny("vit")
        model = attach(backbone, ModelSettings(trainable="full"))
        fleet = local_fleet(backbone, model, adapted("vit")[2], parts_of([9, 14]), cuts=(1, 3), learn=learn)
        trained.append(run(fleet, state_of(model), 2)[1])
    assert_equal_states(*trained, 1e-12)


def test_central_training_has_it_too():
    trained, kept = [], []
    for learn in (LEARN, CHECKPOINTED):
        backbone, model, examples = adapted("vit", dropout=0.2)
        parts, blocks = parts_of([9, 14]), blocks_of(backbone.model, backbone.family)
        options = {"settings": FleetSettings(devices=2), "learn": learn, "seed": 3, "blocks": blocks}
        trained.append(run(Central(model, examples, parts, **options), state_of(model), 2)[1])
        one = whole_arguments(batch("vit"))
        kept.append(saved_bytes(lambda model=model, one=one: model(**one).loss, model.parameters()))
    assert_equal_states(*trained, 1e-12)
    assert kept[1] < 0.4 * kept[0]


@pytest.mark.parametrize("kind", ["vit", "bert", "llama", "electra"])
def test_both_sides_keep_the_input_of_each_block_and_little_else(kind):
    backbone = tiny(kind)
    model = attach(backbone, ModelSettings(rank=2))
    one, rows = batch(kind, rows=8, full=True), Rows((0,), (8,))
    kept = {}
    for checkpointing in (False, True):
        device, server = split(backbone, model, [2])
        device.checkpointing = server.checkpointing = checkpointing
        weights = [*backbone.model.parameters(), device.stack.values, server.stack.values]
        hidden = device(one["inputs"], one["lengths"], 2, rows).detach().requires_grad_()
        entering = [Arrival(2, hidden, rows)]
        kept[checkpointing] = (
            saved_bytes(lambda device=device: device(one["inputs"], one["lengths"], 2, rows), weights),
            saved_bytes(lambda server=server, given=entering: server(given, one["lengths"]), weights),
        )
    for before, after in zip(kept[False], kept[True], strict=True):
        assert after < 0.4 * before, (kind, before, after)
    inputs = hidden.numel() * hidden.element_size()
    assert kept[True][0] >= 2 * inputs and DEPTH == 3 and torch.is_grad_enabled()
