"""Blocks of a device's own (``fleet.tuned``): it trains as if all tuned those; a block is the mean of those who do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sflam.errors import ModelError
from sflam.learn.aggregate import aggregation_error, fedavg
from sflam.learn.device import Devices
from sflam.model.adapters import load_state, state_of
from sflam.model.lower_rank import A_ENDS
from sflam.model.settings import ModelSettings
from sflam.model.split import DeviceSegment
from sflam.model.tuned import tuned_blocks
from sflam.plan import ALL_LOCAL
from tests.learn.builders import LEARN, adapted, assert_equal_states, local_fleet, parts_of, run
from tests.tiny import DEPTH, largest_difference

TUNED, SIZES = (1, -1, 0, -2), (9, 14, 7, 12)
CUTS = (2, 2, 1, 1)


def fleet_of(kind, tuned, all_tuned=0, **options):
    """Return a fleet, and its start: the adapters of all blocks, or those that ``model.tuned`` has of them."""
    whole = state_of(adapted(kind)[1])
    backbone, model, examples = adapted(kind, model_settings=ModelSettings(rank=2, tuned=all_tuned))
    start = {name: whole[name] for name in state_of(model)}
    load_state(model, start)
    fleet = local_fleet(backbone, model, examples, parts_of(SIZES), cuts=CUTS, **options)
    if tuned:
        fleet.place([replace(p, tuned=own) for p, own in zip(fleet.placements, tuned, strict=True)])
    return fleet, start


def trained(fleet, device):
    """Return what a device trained, on both sides."""
    served = fleet.servers.named(device, fleet.devices.cuts[device], fleet.servers.row(device))
    own = fleet.devices.segment.stack.read(device)
    return {name: own[name] for name in fleet.devices.names(device)} | served


@pytest.mark.parametrize("kind", ["vit", pytest.param("bert", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "options",
    [{}, {"labels": "device"}, {"servers": (0, 1, 1, 0)}, {"learn": replace(LEARN, aggregation="freeze-a")}],
    ids=["", "labels", "servers", "freeze-a"],
)
def test_each_device_trains_as_if_all_tuned_its_blocks(kind, options):
    fleet, start = fleet_of(kind, TUNED, **options)
    (record,), state = run(fleet, start, 1)
    every = [trained(fleet, device) for device in range(4)]
    frozen = A_ENDS if options.get("learn", LEARN).practice.aggregation == "freeze-a" else ()
    for device, own in enumerate(TUNED):
        alone, begin = fleet_of(kind, (), own, **options)
        run(alone, begin, 1)
        assert_equal_states(every[device], trained(alone, device), 1e-9)
        blocks = {alone.devices.segment.block_of(name) for name in every[device]} - {None}
        assert blocks == set(tuned_blocks(own, DEPTH))
    for name, tensor in state.items():
        block = fleet.devices.segment.block_of(name)
        having = [d for d in range(4) if name in every[d]]
        if name.endswith(frozen) and frozen:
            assert torch.equal(tensor, start[name])
            continue
        assert having == [d for d in range(4) if block is None or block in tuned_blocks(TUNED[d], DEPTH)]
        counts = torch.tensor([float(record.device_samples[d]) for d in having]).double()
        mean = sum(every[d][name] * w for d, w in zip(having, counts / counts.sum(), strict=True))
        assert largest_difference(tensor, mean) < 1e-12, name


def test_only_what_is_tuned_moves_and_travels():
    fleet, start = fleet_of("vit", TUNED)
    (record,), _ = run(fleet, start, 1)
    stack, segment = fleet.devices.segment.stack, fleet.devices.segment
    for device, cut in enumerate(CUTS):
        own = tuned_blocks(TUNED[device], DEPTH)
        for name, tensor in stack.read(device).items():
            assert segment.block_of(name) in own or not tensor.any()
        assert segment.answers(cut, device) == (cut > own.start)
    assert [bool(fleet.devices.names(device)) for device in range(4)] == [True, False, True, False]
    assert record.adapter_bytes_up == record.adapter_bytes_down
    gradients = [record.bytes_down // record.device_steps]
    assert gradients[0] > 0


def test_a_device_without_a_server_tunes_its_blocks_too():
    fleet, start = fleet_of("vit", ())
    fleet.place(
        [
            replace(fleet.placements[0], server=ALL_LOCAL, tuned=1),
            replace(fleet.placements[1], tuned=2),
            *fleet.placements[2:],
        ]
    )
    run(fleet, start, 1)
    names = [name for name in trained(fleet, 0) if "lora_" in name]
    assert names and {fleet.devices.segment.block_of(name) for name in names} == {0}


def test_a_block_that_nobody_of_a_round_tunes_stays():
    fleet, start = fleet_of("vit", (1, 1, 1, 1))
    _, state = run(fleet, start, 1)
    for name, tensor in state.items():
        block = fleet.devices.segment.block_of(name)
        assert torch.equal(tensor, start[name]) == (block in (1, 2)), name


def test_more_blocks_than_there_are():
    with pytest.raises(ModelError, match="9 tuned blocks are more"):
        fleet_of("vit", (9, 0, 0, 0))


def test_a_mean_is_of_those_who_have_a_tensor():
    one, two = {"a": torch.ones(2), "b": torch.ones(2)}, {"a": torch.zeros(2)}
    found = fedavg([one, two], [0.25, 0.75])
    assert found["a"].tolist() == [0.25, 0.25] and found["b"].tolist() == [1.0, 1.0]
    a, b = "m.lora_A.weight", "m.lora_B.weight"
    alone = {a: torch.randn(1, 3), b: torch.randn(3, 1)}
    assert aggregation_error([alone, {}], [0.5, 0.5]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kind", ["bert", "vit"])
def test_a_device_in_a_fleet_computes_what_it_would_alone_bit_for_bit(kind):
    """Blocks below its cut are not tuned, those of another device are: its samples go row by row all the same."""
    backbone, _, examples = adapted(kind, model_settings=ModelSettings(rank=2, tuned=-1))
    learn, batch = replace(LEARN, canonical=True), examples.take(np.arange(8))
    fleet = Devices(DeviceSegment(backbone, 3, 2), (2, 3), learn)
    alone = Devices(DeviceSegment(backbone, 2, 1), (2,), learn)
    assert torch.equal(fleet.forward({0: batch}, {0: 0})[0], alone.forward({0: batch}, {0: 0})[0])
