"""Several servers and devices that train alone: the same mathematics as one server, averaged by server."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from sflam import sizes
from sflam.codec.settings import QuantSettings
from sflam.data.batches import round_batches
from sflam.errors import ConfigError, ModelError
from sflam.learn.aggregate import average_of_servers, fedavg
from sflam.learn.optimizers import optimizer
from sflam.learn.settings import FleetSettings
from sflam.model.adapters import state_of
from sflam.model.dummy_inputs import valid_tokens
from sflam.plan import ALL_LOCAL
from tests.learn.builders import IDENTITY, LEARN, adapted, assert_equal_states, local_fleet, parts_of, run
from tests.tiny import KINDS, is_lm

SIZES, CUTS = [11, 3, 8, 5], [1, 0, 3, 2]
FOUR = QuantSettings(bits_up=4, bits_down=4, bits_adapters=32)


def fleet_of(
    kind, servers, *, cuts=CUTS, sizes=SIZES, learn=LEARN, quant=IDENTITY, labels="server", **options
):
    backbone, model, examples = adapted(kind, **options)
    fleet = local_fleet(
        backbone,
        model,
        examples,
        parts_of(sizes),
        cuts=cuts,
        servers=servers,
        learn=learn,
        quant=quant,
        labels=labels,
    )
    return fleet, state_of(model), model, examples


def trained(kind, servers, *, rounds=2, **options):
    fleet, state, *_ = fleet_of(kind, servers, **options)
    return run(fleet, state, rounds)


@pytest.mark.parametrize("quant", [IDENTITY, FOUR], ids=["identity", "uniform"])
def test_one_server_that_is_named_is_one_server(quant):
    """Bit for bit: naming the only server changes nothing."""
    torch.set_num_threads(1)
    runs = [trained("bert", servers, cuts=[2] * 4, quant=quant) for servers in ((), (0, 0, 0, 0))]
    assert all(torch.equal(runs[0][1][name], runs[1][1][name]) for name in runs[0][1])
    assert [r.bytes_up for r in runs[0][0]] == [r.bytes_up for r in runs[1][0]]


@pytest.mark.parametrize("labels", ["server", "device"])
@pytest.mark.parametrize("kind", KINDS)
def test_where_each_device_is_served_does_not_matter_with_a_copy_each(kind, labels):
    """SFL-V1: the average by servers of averages by devices is that by devices; mixed cuts, quantized."""
    one, two = (trained(kind, s, quant=IDENTITY, labels=labels) for s in ((), (1, 0, 1, 0)))
    assert_equal_states(two[1], one[1], 1e-5 if is_lm(kind) else 1e-9)
    assert [r.bytes_up for r in one[0]] == [r.bytes_up for r in two[0]]
    assert [r.loss for r in two[0]] == pytest.approx([r.loss for r in one[0]], rel=1e-6)


def test_the_average_of_three_devices_on_two_servers_by_hand():
    a, b, c = ({"x": torch.tensor([value], dtype=torch.float64)} for value in (1.0, 4.0, 10.0))
    # server 0: 10 and 30 samples -> (10 * 1 + 30 * 4) / 40 = 3.25; server 1: 20 samples -> 10
    found = average_of_servers([([a, b], [0.25, 0.75], 40), ([c], [1.0], 20)])
    assert found["x"].item() == pytest.approx((40 * 3.25 + 20 * 10) / 60)
    assert found["x"].item() == pytest.approx((10 * 1 + 30 * 4 + 20 * 10) / 60)


def test_servers_with_one_shared_copy_each_train_apart_and_are_averaged_by_samples():
    """SFL-V2 on two servers is two fleets of SFL-V2, whose models are averaged by their samples."""
    learn = replace(LEARN, method="sfl-v2")
    _, both = trained("vit", (0, 0, 1, 1), learn=learn, rounds=1, cuts=[1] * 4)
    apart = []
    for group in ((0, 1), (2, 3)):
        alone, start, *_ = fleet_of("vit", (), learn=learn, cuts=[1] * 4)
        alone.download(0, group, start)
        apart.append(alone.average(0, group, alone.local_steps(0, group)).state)
    assert_equal_states(both, fedavg(apart, [14 / 27, 13 / 27]))


def plain_peft(model, examples, indices, learn, rounds):
    """Train a copy of an unsplit peft model on one device's samples, with nothing of a split or a stack."""
    model = copy.deepcopy(model).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    steps = optimizer(learn, trained)
    for number in range(rounds):
        steps.state.clear()
        for batch in round_batches(indices, learn.batch, seed=3, round=number, device=0, epochs=1):
            one = examples.take(batch)
            arguments = dict(one.inputs, labels=one.labels)
            if one.lengths is not None:
                arguments["attention_mask"] = valid_tokens(one.lengths, one.inputs["input_ids"].shape[1])
            steps.zero_grad()
            model(**arguments).loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, learn.clip)
            steps.step()
    return state_of(model)


@pytest.mark.parametrize("labels", ["server", "device"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_device_without_a_server_is_plain_peft(kind, labels):
    """Whatever the quantizer and the labels' place: nothing of it crosses a network."""
    fleet, state, _, examples = fleet_of(kind, [ALL_LOCAL], sizes=[11], cuts=[3], quant=FOUR, labels=labels)
    _, found = run(fleet, state, 2)
    fresh = adapted(kind)
    expected = plain_peft(fresh[1], examples, parts_of([11])[0], LEARN, 2)
    assert_equal_states(found, expected, 1e-5 if is_lm(kind) else 1e-9)


def test_of_a_device_without_a_server_only_adapters_travel():
    fleet, state, *_ = fleet_of("vit", [0, ALL_LOCAL], sizes=[4, 4], cuts=[1, 1], quant=FOUR)
    (record,), _ = run(fleet, state, 1)
    tokens, width = 4 * 17, 32
    assert record.bytes_up == sizes.step_body_bytes(tokens, width, 4, rows=4, labels=4)
    names = fleet.devices.segment.names(1)
    block = sum(state[name].numel() for name in names)
    whole = sum(tensor.numel() for tensor in state.values())
    double = 64
    expected = sizes.adapter_body_bytes(block, double) + sizes.adapter_body_bytes(whole, double)
    assert record.adapter_bytes_up == record.adapter_bytes_down == expected
    assert record.samples == 8 and record.device_steps == 2


@pytest.mark.parametrize("labels", ["server", "device"])
@pytest.mark.parametrize("method", ["sflam", "sfl-v2"])
def test_a_fleet_of_all_kinds_goes_on_where_it_was(method, labels):
    """Two servers and a device alone, optimisers kept: stopped after a round and restored, it ends the same."""
    learn = replace(LEARN, method=method, state="keep", server_update="batched")
    servers = (1, ALL_LOCAL, 0, 1)
    fleet, state, *_ = fleet_of("bert", servers, learn=learn, labels=labels)
    _, whole = run(fleet, state, 2)
    first, state, *_ = fleet_of("bert", servers, learn=learn, labels=labels)
    _, half = run(first, state, 1)
    again, *_ = fleet_of("bert", servers, learn=learn, labels=labels)
    again.restore(copy.deepcopy(first.state()))
    devices = again.select(1)
    again.download(1, devices, half)
    assert_equal_states(again.average(1, devices, again.local_steps(1, devices)).state, whole, 1e-12)


def test_bad_servers_are_reported():
    with pytest.raises(ConfigError, match=r"fleet.servers lists 2 numbers for 3 devices"):
        FleetSettings(devices=3, servers=(0, 1))
    with pytest.raises(
        ConfigError, match=r"fleet.servers holds -2; each must be -1 or more \(-1: a device without"
    ):
        FleetSettings(devices=1, servers=(-2,))
    with pytest.raises(ModelError, match=r'model.trainable = "full" trains the embedding'):
        from sflam.model.settings import ModelSettings

        fleet_of(
            "vit", [ALL_LOCAL, 0], sizes=[4, 4], cuts=[1, 1], model_settings=ModelSettings(trainable="full")
        )
