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
        adam = torch.optim.AdamW(trained, lr=learn.lr, weight_decay=learn.weight_decay)
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
    assert [replace(r, seconds=0.0) for r in plain] == [replace(r, seconds=0.0) for r in ranked]


@pytest.mark.parametrize("method", ["fedlora", "sflam"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("aggregation", ["fedavg", "freeze-a"])
def test_nothing_beyond_a_rank_ever_moves(method, optimizer, aggregation):
    """All devices have rank 1 of 3: the global factors beyond are zero after a round, and stay so."""
    momentum = 0.9 if optimizer == "sgd" else 0.0
    learn = replace(
        LEARN, method=method, optimizer=optimizer, momentum=momentum, aggregation=aggregation, state="keep"
    )
    start, fleet = fleet_of(learn, (1, 1, 1))
    _, state = run(fleet, start, 3)
    for name, tensor in state.items():
        first, rest = components(name, tensor, 1), tensor.clone()
        components(name, rest, 1).zero_()
        if name.endswith("lora_A.weight") and aggregation == "freeze-a":
            assert torch.equal(tensor, start[name]), "every A is common and as it was"
            continue
        assert not rest.any(), name
        assert not torch.equal(first, components(name, start[name], 1)), name


def test_a_shared_trunk_keeps_the_models_rank():
    start, fleet = fleet_of(replace(LEARN, method="sfl-v2"), (1, 1, 1))
    _, state = run(fleet, start, 1)
    for name, tensor in state.items():
        if ".lora_B" in name:
            beyond = tensor[:, 1:]
            assert beyond.any() == (".layers.0." not in name), name


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
    DeviceRanks((1, 3)).limit(stack, {0: 0, 1: 1})
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
