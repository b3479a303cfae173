"""Averaging: FedAvg by hand arithmetic, and the exact variants."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from sflam.learn import aggregate
from sflam.learn.aggregate import aggregation_error, fedavg, residuals, weights_of
from sflam.model.adapters import adapted_layers, load_state, state_of
from tests.learn.builders import LEARN, adapted, assert_equal_states, local_fleet, parts_of, run

A, B = "layer.lora_A.weight", "layer.lora_B.weight"


def states():
    """Three devices with 1, 2 and 5 samples; factors small enough to multiply by hand."""
    return [
        {A: torch.tensor([[1.0, 0.0]]), B: torch.tensor([[2.0], [0.0]])},
        {A: torch.tensor([[0.0, 1.0]]), B: torch.tensor([[0.0], [4.0]])},
        {A: torch.tensor([[8.0, 8.0]]), B: torch.tensor([[1.0], [1.0]])},
    ]


def test_fedavg_is_hand_arithmetic():
    """(1 * 1 + 2 * 0 + 5 * 8) / 8 = 5.125, and so on; the last device's weights would be 8 and 1."""
    mean = fedavg(states(), weights_of([1, 2, 5]))
    assert mean[A].tolist() == [[5.125, 5.25]]
    assert mean[B].tolist() == [[0.875], [1.625]]


def test_fedavg_of_many_tensors_is_that_of_each(monkeypatch):
    """Tensors averaged together, of two types, more than go at once, one that a device lacks: the same bits."""
    draw = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (5,), (2, 2, 2), (7,), ()]
    three = [
        {
            f"t{n}": torch.randn(shape, generator=draw).to(torch.float64 if n == 1 else torch.float32)
            for n, shape in enumerate(shapes)
        }
        for _ in range(3)
    ]
    del three[1]["t3"]
    weights = weights_of([1, 2, 5])
    alone = {
        name: fedavg(
            [{name: state[name]} for state in three if name in state],
            weights if name != "t3" else weights_of([weights[0], weights[2]]),
        )[name]
        for name in three[0]
    }
    for most in (aggregate.MOST, 14):
        monkeypatch.setattr(aggregate, "MOST", most)
        found = fedavg(three, weights)
        assert list(found) == list(three[0])
        for name, tensor in found.items():
            assert torch.equal(tensor, alone[name]) and tensor.dtype == alone[name].dtype
            assert tensor.untyped_storage().nbytes() == tensor.nbytes  # its own, as files of tensors want it


def test_averaging_works_on_copies():
    """Devices that train on after the average must not move it, nor one another."""
    before = states()
    mean = fedavg(before, weights_of([1, 2, 5]))
    before[0][A] += 100
    assert mean[A].tolist() == [[5.125, 5.25]]


def test_what_averaging_factors_loses_is_hand_arithmetic():
    """mean(BA) - mean(B) mean(A) for two devices of equal weight, computed entry by entry."""
    two = states()[:2]
    # BA: [[2,0],[0,0]] and [[0,0],[0,4]]; mean [[1,0],[0,2]]. mean(A) = [.5,.5], mean(B) = [[1],[2]].
    lost = residuals(two, [0.5, 0.5])["layer"]
    assert lost.tolist() == [[0.5, -0.5], [-1.0, 1.0]]
    assert aggregation_error(two, [0.5, 0.5]) == pytest.approx((2.5 / 5.0) ** 0.5)


def test_equal_devices_lose_nothing():
    assert aggregation_error([states()[2]] * 3, [0.2, 0.3, 0.5]) == pytest.approx(0, abs=1e-12)
    assert aggregation_error([{A: torch.zeros(1, 2), B: torch.zeros(2, 1)}] * 2, [0.5, 0.5]) == 0.0


@pytest.mark.parametrize("devices", [2, 9], ids=["by factors", "by products"])
def test_the_error_of_an_average_is_that_of_its_products(devices):
    draw = torch.Generator().manual_seed(devices)
    own = [
        {A: torch.randn(2, 7, generator=draw), B: torch.randn(12, 2, generator=draw)} for _ in range(devices)
    ]
    weights = weights_of(list(range(1, devices + 1)))
    exact = sum(w * state[B].double() @ state[A].double() for w, state in zip(weights, own, strict=True))
    means = fedavg([{name: tensor.double() for name, tensor in state.items()} for state in own], weights)
    expected = float((exact - means[B] @ means[A]).norm() / exact.norm())
    assert aggregation_error(own, weights) == pytest.approx(expected, rel=1e-12)


def products(model):
    """Return the whole weight of every adapted layer, base and update together."""
    return {
        name: layer.get_base_layer().weight.detach().clone() + layer.get_delta_weight("default").detach()
        for name, layer in adapted_layers(model).items()
    }


def whole_weights_of_each_device(fleet, model, devices):
    """Return every adapted layer's whole weight as each device left it."""
    found = []
    for device in devices:
        own = copy.deepcopy(model)
        held = fleet.devices.segment.stack.read(device)
        served = fleet.servers.trunks[0].segment.stack.read(device)
        names = fleet.devices.segment.names(fleet.devices.cuts[device])
        state = state_of(own) | served | {name: held[name] for name in names}
        load_state(own, state)
        found.append(products(own))
    return found


@pytest.mark.parametrize("kind", ["vit", "gpt2"])
@pytest.mark.parametrize("aggregation", ["freeze-a", "residual"])
def test_exact_aggregation_is_the_mean_of_the_whole_weights(kind, aggregation):
    """What fedavg only approximates, freeze-a and residual reach: mean(W + BA) over devices, by samples."""
    backbone, model, examples = adapted(kind)
    sizes = [10, 6, 2]
    learn = replace(LEARN, aggregation=aggregation, local_epochs=2)
    fleet = local_fleet(backbone, model, examples, parts_of(sizes), cuts=[1, 2, 0], learn=learn)
    before = copy.deepcopy(model)
    fleet.download(0, [0, 1, 2], state_of(model))
    steps = fleet.local_steps(0, [0, 1, 2])
    assert list(steps.samples.values()) == [2 * n for n in sizes]
    devices = whole_weights_of_each_device(fleet, before, [0, 1, 2])
    expected = {
        name: sum(device[name] * n for device, n in zip(devices, sizes, strict=True)) / 18
        for name in devices[0]
    }
    average = fleet.average(0, [0, 1, 2], steps)
    load_state(model, average.state)
    assert_equal_states(products(model), expected)
    approximate = copy.deepcopy(before)
    load_state(approximate, average.state)
    if aggregation == "residual":  # without the correction of the frozen weights it would not be so
        assert average.residual_bytes > 0 and average.error > 1e-4
        with pytest.raises(AssertionError):
            assert_equal_states(products(approximate), expected, 1e-6)


def test_freeze_a_never_moves_a():
    backbone, model, examples = adapted("vit")
    learn = replace(LEARN, aggregation="freeze-a", weight_decay=0.1)
    start = state_of(model)
    _, state = run(local_fleet(backbone, model, examples, parts_of([8, 8]), learn=learn), start, 2)
    moved = {name for name in start if not torch.equal(state[name], start[name])}
    assert moved == {name for name in start if ".lora_A." not in name}


def test_residual_bytes_are_those_of_the_device_halves():
    """A device is sent the dense correction of the layers it holds: here block 0's six, of a 32 x 32 or 32 x 48."""
    from sflam import sizes

    backbone, model, examples = adapted("vit")
    learn = replace(LEARN, aggregation="residual", rounds=1)
    fleet = local_fleet(backbone, model, examples, parts_of([6, 6]), cuts=[1, 0], learn=learn)
    records, _ = run(fleet, state_of(model), 1)
    assert records[0].residual_bytes == sizes.adapter_body_bytes(4 * 32 * 32 + 2 * 32 * 48)
