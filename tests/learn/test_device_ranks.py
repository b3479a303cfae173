"""A rank for each device: what it trains is LoRA of that rank, and everything beyond stays zero."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sflam.data.batches import round_batches
from sflam.learn.device_ranks import DeviceRanks
from sflam.learn.federated import Federated
from sflam.learn.settings import FleetSettings
from sflam.model.adapters import PREFIX, attach, load_state, state_of
from sflam.model.dummy_inputs import with_mask
from sflam.model.settings import ModelSettings
from sflam.model.stack import AdapterStack
from sflam.sizes import adapter_body_bytes
from tests.learn.builders import LEARN, adapted, assert_equal_states, local_fleet, parts_of, run
from tests.tiny import tiny

UNCLIPPED = replace(LEARN, clip=0.0, state="keep")
SIZES, RANKS = [9, 4, 14], (1, 3, 2)
SETTINGS = ModelSettings(rank=3, alpha=6)
SEED = 3


def fleet_of(learn, ranks, *, kind="vit", settings=SETTINGS, **options):
    """Return the global adapters at the start and a fleet of devices with these ranks."""
    backbone, model, examples = adapted(kind, model_settings=settings)
    start = state_of(model)
    if learn.method == "fedlora":
        own = FleetSettings(devices=len(SIZES), ranks=ranks)
        return start, Federated(model, examples, parts_of(SIZES), settings=own, learn=learn, seed=SEED)
    return start, local_fleet(backbone, model, examples, parts_of(SIZES), ranks=ranks, learn=learn, **options)


def components(name, tensor, rank):
    """Return the first components of a factor; any other tensor as it is."""
    if name.endswith("lora_A.weight"):
        return tensor[:rank]
    return tensor[:, :rank] if name.endswith("lora_B.weight") else tensor


def by_hand(start, learn, rounds):
    """Every device alone, an unmodified peft model of its own rank; then the mean, short factors padded with zeros."""
    own, state = [], start
    for device, (part, rank) in enumerate(zip(parts_of(SIZES), RANKS, strict=True)):
        # The same alpha / r: what a component does is the same on every device.
        settings = ModelSettings(rank=rank, alpha=2 * rank)
        backbone = tiny("vit")
        model = attach(backbone, settings)
        _, _, examples = adapted("vit", model_settings=settings)
        assert {n: t.shape for n, t in state_of(model).items()} == {
            n: components(n, t, rank).shape for n, t in start.items()
        }
        trained = [p for p in model.train().parameters() if p.requires_grad]
        adam = torch.optim.AdamW(trained, lr=learn.practice.lr, weight_decay=learn.weight_decay)
        own.append((device, part, rank, model, examples, adam))
    total = sum(SIZES)
    for number in range(rounds):
        mean = {name: torch.zeros_like(tensor) for name, tensor in start.items()}
        for device, part, rank, model, examples, adam in own:
            load_state(model, {n: components(n, t, rank) for n, t in state.items()})
            for rows in round_batches(part, learn.batch, seed=SEED, round=number, device=device, epochs=1):
                one = examples.take(rows)
                adam.zero_grad()
                model(**with_mask(one.inputs, one.lengths), labels=one.labels).loss.backward()
                adam.step()
            for name, tensor in state_of(model).items():
                components(name, mean[name], rank).add_(tensor, alpha=len(part) / total)
        state = mean
    return state


@pytest.mark.parametrize(
    ("method", "cuts"), [("fedlora", ()), ("sflam", (1, 1, 1)), ("sflam", (0, 2, 3))], ids=str
)
def test_equals_models_of_their_own_ranks(method, cuts):
    learn = replace(UNCLIPPED, method=method)
    start, fleet = fleet_of(learn, RANKS, **({"cuts": cuts} if cuts else {}))
    expected = by_hand(start, learn, 3)
    assert_equal_states(run(fleet, start, 3)[1], expected)


@pytest.mark.parametrize("method", ["fedlora", "sflam", "sfl-v2", "sflam-mixed"])
@pytest.mark.parametrize("aggregation", ["fedavg", "freeze-a"])
def test_the_models_rank_everywhere_changes_nothing(method, aggregation):
    learn = replace(LEARN, method=method, aggregation=aggregation, canonical=True, clip=0.5)
    found = []
    for ranks in ((), (3, 3, 3)):
        start, fleet = fleet_of(learn, ranks)
        found.append(run(fleet, start, 2))
    (plain, expected), (ranked, state) = found
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    assert [replace(r, seconds=0.0, evaluating_s=0.0) for r in plain] == [
        replace(r, seconds=0.0, evaluating_s=0.0) for r in ranked
    ]


@pytest.mark.parametrize("method", ["fedlora", "sflam"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("aggregation", ["fedavg", "freeze-a"])
def test_nothing_beyond_a_rank_ever_moves(method, optimizer, aggregation):
    """All devices have rank 1 of 3: their copies are zero beyond, and the global factors stay as they were."""
    momentum = 0.9 if optimizer == "sgd" else 0.0
    learn = replace(
        LEARN, method=method, optimizer=optimizer, momentum=momentum, aggregation=aggregation, state="keep"
    )
    start, fleet = fleet_of(learn, (1, 1, 1))
    _, state = run(fleet, start, 3)
    for name, tensor in state.items():
        moved = (tensor - start[name]).abs()
        if name.endswith("lora_A.weight") and aggregation == "freeze-a":
            assert not moved.any(), "every A is common and as it was"
            continue
        assert components(name, moved, 1).any(), name
        components(name, moved, 1).zero_()
        assert ".lora_" not in name or moved.max() <= 1e-15, name
    if method == "sflam":
        stacks = [fleet.devices.segment.stack, *(t.segment.stack for t in fleet.servers.trunks.values())]
        for stack in stacks:
            assert stack.values[stack.beyond].numel() and not stack.values[stack.beyond].any()


def test_a_shared_trunk_keeps_the_models_rank():
    start, fleet = fleet_of(replace(LEARN, method="sfl-v2"), (1, 1, 1))
    _, state = run(fleet, start, 1)
    for name, tensor in state.items():
        if ".lora_B" in name:
            beyond = (tensor - start[name]).abs()[:, 1:]
            assert (beyond.max() > 1e-15) == (".layers.0." not in name), name


@pytest.mark.parametrize("aggregation", ["fedavg", "freeze-a"])
def test_only_the_numbers_of_a_rank_travel(aggregation):
    learn = replace(LEARN, aggregation=aggregation)
    start, fleet = fleet_of(learn, RANKS)
    records, _ = run(fleet, start, 1)
    names = fleet.devices.segment.names(1)
    assert any(".lora_A" in name for name in names) == (aggregation == "fedavg")
    sizes = [sum(components(n, start[n], rank).numel() for n in names) for rank in RANKS]
    assert len(set(sizes)) == 3
    expected = sum(adapter_body_bytes(size, 64) for size in sizes)
    assert records[0].adapter_bytes_up == records[0].adapter_bytes_down == expected


def test_clipping_sees_the_gradient_of_the_rank_alone():
    """A frozen common A gives B a gradient in every column; those beyond must not take a part of the norm."""
    name = f"{PREFIX}x.lora_B.weight"
    stack = AdapterStack({name: torch.ones(2, 3, dtype=torch.float64)}, 2, torch.float64)
    stack.limit(DeviceRanks((1, 3)).beyond(stack, {0: 0, 1: 1}))
    assert stack.read(0)[name].tolist() == [[1, 0, 0], [1, 0, 0]]
    assert stack.read(1)[name].tolist() == [[1, 1, 1], [1, 1, 1]]
    stack.begin([0, 1])
    stack.grads.fill_(3.0)
    stack.hand_out(clip=1.0)
    for row, entries in ((0, 2), (1, 6)):
        assert stack.rows[row].grad.norm().item() == pytest.approx(1.0, rel=1e-5)
        assert int(stack.rows[row].grad.count_nonzero()) == entries


def test_the_average_by_hand():
    """HetLoRA's padding on numbers: ranks 1 and 2, one sample and three."""
    state = {f"{PREFIX}x.lora_A.weight": torch.tensor([[4.0], [8.0]])}
    (name,) = state
    ranks = DeviceRanks((1, 2))
    first, _ = ranks.transfer(0, 0, 1, state, [name])
    second, _ = ranks.transfer(0, 1, 3, {name: torch.tensor([[0.0], [4.0]])}, [name])
    assert first[name].tolist() == [[4.0], [0.0]]
    assert (first[name] / 4 + second[name] * 3 / 4).tolist() == [[1.0], [3.0]]
    assert ranks.truncated(0, state)[name].tolist() == [[4.0], [0.0]]
    assert ranks.truncated(1, state)[name].tolist() == [[4.0], [8.0]]


@pytest.mark.parametrize("method", ["fedlora", "sflam"])
@pytest.mark.parametrize("aggregation", ["fedavg", "svd"])
def test_a_round_of_low_ranks_alone_does_not_kill_the_others(method, aggregation):
    """Padded with zeros, both factors of a component would be zero for good: without a gradient."""
    learn = replace(LEARN, method=method, aggregation=aggregation)
    start, fleet = fleet_of(learn, RANKS)
    state = start
    for number, devices in enumerate([(0,), (1,)]):
        fleet.download(number, devices, state)
        after = fleet.average(number, devices, fleet.local_steps(number, devices)).state
        for name in (name for name in start if ".lora_" in name):
            rest = after[name].clone()
            components(name, rest, 1).zero_()
            assert rest.any(), name
            if aggregation == "fedavg" and number == 0:
                assert torch.equal(rest, start[name] - _padded(name, start[name], 1)), name
            if number == 1:
                assert not torch.equal(after[name], state[name]), name
        state = after


def _padded(name, tensor, rank):
    padded = torch.zeros_like(tensor)
    components(name, padded, rank).copy_(components(name, tensor, rank))
    return padded


def test_a_device_gets_the_largest_directions_of_the_mean_product():
    """FlexLoRA by hand: the mean of the products, its singular values, and a device of rank 1."""
    learn = replace(LEARN, method="fedlora", aggregation="svd", clip=0.0)
    start, fleet = fleet_of(learn, RANKS)
    fleet.download(0, (0, 1, 2), start)
    steps = fleet.local_steps(0, (0, 1, 2))
    trained = {device: dict(state) for device, state in fleet.own.items()}
    state = fleet.average(0, (0, 1, 2), steps).state
    fleet.download(1, (0,), state)
    total = sum(SIZES)
    for a_name in (name for name in start if name.endswith("lora_A.weight")):
        b_name = a_name.replace("lora_A", "lora_B")
        mean = sum((size / total) * trained[d][b_name] @ trained[d][a_name] for d, size in enumerate(SIZES))
        u, s, vt = torch.linalg.svd(mean, full_matrices=False)
        assert_equal_states(
            {"all": state[b_name] @ state[a_name], "first": fleet.own[0][b_name] @ fleet.own[0][a_name]},
            {"all": u[:, :3] * s[:3] @ vt[:3], "first": u[:, :1] * s[:1] @ vt[:1]},
        )
