"""One device, nothing quantized: split fine-tuning is plain peft training of the whole model."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from sflam.data.batches import round_batches
from sflam.learn.central import Central
from sflam.learn.settings import FleetSettings
from sflam.model.adapters import state_of
from tests.learn.builders import LEARN, adapted, assert_equal_states, local_fleet, parts_of, run
from tests.tiny import KINDS, is_lm, whole_arguments

# One clip of the whole gradient is not one clip per side, so this comparison does not clip.
UNCLIPPED = replace(LEARN, clip=0.0)


def plain_training(model, examples, part, learn, rounds, seed=3):
    """Train the unmodified class with one optimiser over everything, on the batches of device 0."""
    model = copy.deepcopy(model).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(trained, lr=learn.practice.lr, weight_decay=learn.weight_decay)
    for number in range(rounds):
        if learn.practice.state == "reset":
            adam.state.clear()
        options = {"steps": learn.local_steps, "epochs": learn.local_epochs}
        for indices in round_batches(part, learn.batch, seed=seed, round=number, device=0, **options):
            one = examples.take(indices)
            arguments = {"inputs": one.inputs, "lengths": one.lengths, "labels": one.labels}
            adam.zero_grad()
            model(**whole_arguments(arguments)).loss.backward()
            adam.step()
    return state_of(model)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", [0, 1, 3])
@pytest.mark.parametrize(("state", "rounds"), [("reset", 1), ("keep", 1), ("keep", 3)])
def test_sflam_on_one_device_is_plain_peft_training(kind, cut, state, rounds):
    backbone, model, examples = adapted(kind)
    learn = replace(UNCLIPPED, state=state)
    (part,) = parts_of([22])  # five full mini-batches and a ragged one
    expected = plain_training(model, examples, part, learn, rounds)
    _, trained = run(
        local_fleet(backbone, model, examples, [part], cut=cut, learn=learn), state_of(model), rounds
    )
    assert_equal_states(trained, expected, 1e-5 if is_lm(kind) else 1e-9)


@pytest.mark.parametrize("method", ["sflam", "sfl-v1", "sfl-v2"])
def test_every_split_method_on_one_device_is_plain_peft_training(method):
    backbone, model, examples = adapted("vit")
    learn = replace(UNCLIPPED, method=method)
    (part,) = parts_of([20])
    expected = plain_training(model, examples, part, learn, 1)
    _, trained = run(local_fleet(backbone, model, examples, [part], learn=learn), state_of(model), 1)
    assert_equal_states(trained, expected)


@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_central_is_one_device_with_everything(kind):
    """Central pools the devices' samples; on one device's samples in the same order it is that device alone."""
    _, model, examples = adapted(kind)
    learn = replace(UNCLIPPED, method="central", state="keep")
    parts = parts_of([7, 13])
    settings = FleetSettings(devices=2)
    central = Central(model, examples, parts, settings=settings, learn=learn, seed=3)
    start = state_of(model)
    records, trained = run(central, start, 2)
    assert [record.samples for record in records] == [20, 20]
    assert records[0].bytes_up == records[0].bytes_down == records[0].adapter_bytes_up == 0
    again = Central(adapted(kind)[1], examples, parts, settings=settings, learn=learn, seed=3)
    assert_equal_states(run(again, start, 2)[1], trained, 1e-12)


def test_central_uses_as_many_samples_as_the_fleet():
    backbone, model, examples = adapted("vit")
    for learn in (LEARN, replace(LEARN, local_steps=2), replace(LEARN, local_epochs=3)):
        fleet = local_fleet(backbone, model, examples, parts_of([8, 12]), learn=learn)
        central = Central(
            model, examples, parts_of([8, 12]), settings=FleetSettings(devices=2), learn=learn, seed=3
        )
        assert run(fleet, state_of(model), 1)[0][0].samples == run(central, state_of(model), 1)[0][0].samples
