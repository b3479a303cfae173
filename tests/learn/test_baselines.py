"""What SFLAM is compared with, each against the plainest loop or the hand."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from sflam import sizes
from sflam.config import load
from sflam.data.batches import round_batches
from sflam.errors import ConfigError
from sflam.learn.evaluate import Score
from sflam.learn.federated import Federated, Local
from sflam.learn.relay import Relay
from sflam.learn.settings import FleetSettings
from sflam.learn.steps import Steps
from sflam.model.adapters import load_state, state_of
from sflam.model.settings import ModelSettings
from tests.learn.builders import IDENTITY, LEARN, adapted, assert_equal_states, local_fleet, parts_of, run
from tests.learn.plain_loop import PlainLoop
from tests.tiny import largest_difference

SIZES = [7, 4, 9]


def plain(backbone, model, examples, parts, learn, cuts):
    """Return the plain loop, whose devices and optimisers the oracles below use."""
    options = {"settings": FleetSettings(devices=len(parts)), "learn": learn, "quant": IDENTITY, "seed": 3}
    return PlainLoop(backbone, model, examples, parts, cuts=cuts, **options)


def batches(learn, part, number, device):
    options = {"steps": learn.local_steps, "epochs": learn.local_epochs}
    return round_batches(part, learn.batch, seed=3, round=number, device=device, **options)


@pytest.mark.parametrize("kind", ["vit", "bert"])
@pytest.mark.parametrize("cut", [0, 1, 3])
@pytest.mark.parametrize("local_steps", [0, 1])
def test_sl_is_one_model_that_wanders_from_device_to_device(kind, cut, local_steps):
    backbone, model, examples = adapted(kind)
    learn = replace(LEARN, method="sl", local_steps=local_steps)
    parts = parts_of(SIZES)
    loop = plain(backbone, model, examples, parts, learn, [cut] * 3)
    loop.models = [loop.models[0]] * 3  # the one model
    fleet = local_fleet(backbone, model, examples, parts, cut=cut, learn=learn)
    assert isinstance(fleet, Relay)
    for number in range(2):
        server = loop.make_optimizers(0)[1]  # its momentum lasts for the round, a device's for its turn
        for device in fleet.order(number, (0, 1, 2)):
            loop.optimizers[device] = [loop.make_optimizers(device)[0], server]
            for step, indices in enumerate(batches(learn, parts[device], number, device)):
                loop.step(device, number, step, examples.take(indices))
    records, state = run(fleet, state_of(model), 2)
    assert_equal_states(state, state_of(loop.models[0]), 1e-8)  # one chain of twelve AdamW steps
    names = fleet.devices.segment.names(cut)
    body = sizes.adapter_body_bytes(fleet.devices.segment.stack.size(names), 64) if names else 0
    assert records[0].adapter_bytes_up == records[0].adapter_bytes_down == 3 * body


def test_the_order_of_a_relay_changes_from_round_to_round():
    backbone, model, examples = adapted("vit")
    fleet = local_fleet(backbone, model, examples, parts_of([4] * 8), learn=replace(LEARN, method="sl"))
    orders = [fleet.order(number, tuple(range(8))) for number in range(4)]
    assert len({tuple(order) for order in orders}) > 1 and all(sorted(o) == list(range(8)) for o in orders)


def test_a_relay_needs_one_cut():
    backbone, model, examples = adapted("vit")
    with pytest.raises(ConfigError, match="one cut"):
        local_fleet(
            backbone, model, examples, parts_of([4, 4]), cuts=[0, 1], learn=replace(LEARN, method="sl")
        )


def alone(method, kind="vit", model_settings=None, **options):
    _, model, examples = adapted(kind, model_settings=model_settings)
    learn = replace(LEARN, method=method, **options)
    parts = parts_of(SIZES)
    return (Local if method == "local" else Federated)(
        model, examples, parts, settings=FleetSettings(devices=3), learn=learn, seed=3
    ), state_of(model)


def each_alone(fleet, kind, rounds, *, averaged, model_settings=None):
    """Return what every device holds after plain training of its own copy, averaged by hand or never."""
    backbone, model, examples = adapted(kind, model_settings=model_settings)
    model.load_state_dict(fleet.model.state_dict())
    load_state(model, fleet.start)
    loop = plain(backbone, model, examples, fleet.parts, fleet.learn, [0] * 3)
    loop.sides = lambda k: ([], [p for p in loop.models[k].parameters() if p.requires_grad])
    for number in range(rounds):
        for device in range(3):
            if fleet.learn.practice.state == "reset" or number == 0:
                loop.optimizers[device] = loop.make_optimizers(device)
            for step, indices in enumerate(batches(fleet.learn, fleet.parts[device], number, device)):
                loop.step(device, number, step, examples.take(indices))
        states = [state_of(one) for one in loop.models]
        if averaged:
            mean = {
                n: sum(w * s[n] for w, s in zip(SIZES, states, strict=True)) / sum(SIZES) for n in states[0]
            }
            for one in loop.models:
                load_state(one, mean)
            states = [mean] * 3
    return states


@pytest.mark.parametrize("kind", ["vit", "bert"])
@pytest.mark.parametrize("state", ["reset", "keep"])
def test_fedlora_averages_whole_models_by_samples(kind, state):
    fleet, start = alone("fedlora", kind, state=state)
    expected = each_alone(fleet, kind, 2, averaged=True)[0]
    records, trained = run(fleet, start, 2)
    assert_equal_states(trained, expected)
    body = sizes.adapter_body_bytes(sum(tensor.numel() for tensor in start.values()), 64)
    for record in records:
        assert record.samples == sum(SIZES) and record.bytes_up == record.bytes_down == 0
        assert record.adapter_bytes_up == record.adapter_bytes_down == 3 * body
        assert record.aggregation_error > 0


def test_devices_drawn_by_their_samples_do_not_count_them_twice():
    """Local epochs: the rows of a device over the chance that it was drawn with, so that all count alike."""
    fleet, start = alone("fedlora")
    fleet.settings = FleetSettings(devices=3, selected=1, policy="samples")
    fleet.download(0, [1, 2], start)
    states = {device: {n: torch.full_like(t, device) for n, t in start.items()} for device in (1, 2)}
    fleet.own = dict(states)
    found = fleet.average(0, [1, 2], Steps(samples={1: SIZES[1], 2: SIZES[2]})).state
    for name, value in found.items():
        assert largest_difference(value, torch.full_like(value, 1.5)) < 1e-12, name


def test_fedavg_averages_every_weight():
    full = ModelSettings(trainable="full")
    fleet, start = alone("fedavg", model_settings=full)
    assert sum(t.numel() for t in start.values()) > 0.9 * sum(p.numel() for p in fleet.model.parameters())
    expected = each_alone(fleet, "vit", 2, averaged=True, model_settings=full)[0]
    records, trained = run(fleet, start, 2)
    assert_equal_states(trained, expected)
    assert records[0].aggregation_error is None


def test_local_devices_never_meet_and_score_the_mean_of_their_own():
    fleet, start = alone("local", state="keep")
    expected = each_alone(fleet, "vit", 2, averaged=False)
    records, trained = run(fleet, start, 2)
    for device in range(3):
        assert_equal_states(fleet.own[device], expected[device])
    assert_equal_states(trained, expected[2])  # the device with most samples
    assert records[0].total_bytes == 0
    scores = [(1.0, 0.5, (0.5, None)), (2.0, 0.25, (1.0, None)), (6.0, 0.0, (0.0, None))]
    found = iter([Score(loss, share, per_class=classes) for loss, share, classes in scores])
    each = tuple(classes for _, _, classes in scores)
    assert fleet.score({}, lambda _: next(found)) == Score(3.0, 0.25, per_class=(0.5, None), per_device=each)


@pytest.mark.parametrize("method", ["fedlora", "local"])
def test_devices_alone_go_on_after_a_crash(method):
    whole, start = alone(method, state="keep")
    _, expected = run(whole, start, 2)
    first, _ = alone(method, state="keep")
    _, half = run(first, start, 1)
    kept = copy.deepcopy(first.state())
    second, _ = alone(method, state="keep")
    second.restore(kept)
    state = half
    second.download(1, (0, 1, 2), state)
    steps = second.local_steps(1, (0, 1, 2))
    assert_equal_states(second.average(1, (0, 1, 2), steps).state, expected, 1e-12)


def test_frozen_factors_do_not_travel():
    fleet, start = alone("fedlora", aggregation="freeze-a")
    (record,), trained = run(fleet, start, 1)
    held = sum(t.numel() for n, t in start.items() if not n.endswith("lora_A.weight"))
    assert record.adapter_bytes_up == 3 * sizes.adapter_body_bytes(held, 64)
    assert record.aggregation_error is None
    assert all((trained[n] == start[n]).all() for n in start if n.endswith("lora_A.weight"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["learn.method=fedavg"], 'model.trainable = "full"'),
        (["learn.method=fedlora", "model.trainable=full"], 'learn.method = "fedavg"'),
        (["learn.method=local", "learn.aggregation=residual"], "residual"),
        (["learn.method=local", "learn.keep=best"], 'learn.keep = "last"'),
    ],
)
def test_what_whole_models_cannot_do_is_reported(settings, message):
    from sflam.run.assemble import assemble

    with pytest.raises(ConfigError, match=message):
        assemble(load(None, settings))


def test_whole_models_are_drawn_by_their_samples():
    fleet, start = alone("fedlora")
    fleet.settings = FleetSettings(devices=3, selected=2, policy="samples")
    records, _ = run(fleet, start, 6)
    assert all(len(record.participants) == 2 for record in records)
