"""Devices that are away take no memory, and training is to the bit what it is where every device has a row."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from sflam.codec.settings import QuantSettings
from sflam.learn.evaluate import Score
from sflam.learn.round import train
from sflam.learn.split_fleet import LocalFleet
from sflam.model.adapters import state_of
from sflam.model.lora import Rows
from sflam.model.settings import ModelSettings
from sflam.model.stack import AdapterStack
from tests.learn.builders import LEARN, adapted, local_fleet, parts_of

UNIFORM = QuantSettings(scheme="uniform", bits_up=5, bits_down=6)
DEVICES, SELECTED, ROUNDS = 12, 3, 20
LEARNS = {
    "adamw": LEARN,
    "sgd": replace(LEARN, optimizer="sgd", momentum=0.9),
    "canonical": replace(LEARN, canonical=True),
    "decaying": replace(LEARN, decay=0.9),
    "relay": replace(LEARN, method="sl"),
    "whole weights": LEARN,
    "labels at home": LEARN,
    "ranks": LEARN,
    "shared trunk": replace(LEARN, method="sfl-v2"),
    "two servers": LEARN,
}
OPTIONS = {
    "labels at home": {"labels": "device"},
    "ranks": {"ranks": (1, 2) * (DEVICES // 2)},
    "two servers": {"servers": (0, 1, 1) * (DEVICES // 3)},
}


def fleet_of(case, state):
    full = ModelSettings(trainable="full") if case == "whole weights" else None
    built = adapted("vit", dtype=torch.float32, model_settings=full)
    sizes = [5, 3, 7, 2, 6, 4, 5, 1, 8, 5, 9, 5]
    cut = {} if case == "relay" else {"cuts": (1, 2, 1, 0) * (DEVICES // 4)}
    fleet = local_fleet(
        *built,
        parts_of(sizes),
        selected=SELECTED,
        quant=UNIFORM,
        learn=replace(LEARNS[case], state=state),
        **cut,
        **OPTIONS.get(case, {}),
    )
    return fleet, state_of(built[1])


def every_row(monkeypatch):
    monkeypatch.setattr(LocalFleet, "seats", lambda fleet: 0)


def rounds_of(fleet, state):
    """Yield the record, the global adapters and what is kept after every round."""
    for record, found in train(fleet, state, lambda _: Score(0.0, 0.0), range(ROUNDS)):
        yield record, found, fleet.state()


def trained(fleet, kept):
    """Return what is kept, without the momenta of blocks that a device has beyond its cut: it never uses them."""
    if "devices" not in kept:
        return kept
    segment, found = fleet.devices.segment, {}
    for row, memory in kept["devices"].items():
        columns = [segment.stack.slots[name].columns for name in segment.names(fleet.devices.cuts[int(row)])]
        found[row] = {
            name: torch.cat([one[own] for own in columns] or [one[:0]]) if one.ndim else one
            for name, one in memory.items()
        }
    return kept | {"devices": found}


def assert_same_bits(first, second, where=""):
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same_bits(first[key], second[key], f"{where}.{key}")
    else:
        assert first == second, where


@pytest.mark.parametrize("state", ["reset", "keep"])
@pytest.mark.parametrize("case", LEARNS)
def test_seats_change_no_bit_over_twenty_rounds_of_random_participation(case, state, monkeypatch):
    seated, start = fleet_of(case, state)
    assert len(seated.devices.segment.stack.values) == SELECTED
    with monkeypatch.context() as patch:
        every_row(patch)
        dense, same = fleet_of(case, state)
    assert len(dense.devices.segment.stack.values) == DEVICES
    assert_same_bits(start, same)
    seen = set()
    for (record, mine, kept), (other, theirs, held) in zip(
        rounds_of(seated, start), rounds_of(dense, same), strict=True
    ):
        assert_same_bits(mine, theirs)
        assert record.device_loss == other.device_loss
        assert_same_bits(trained(seated, kept), trained(dense, held))
        seen |= set(record.participants)
    assert len(seen) > 2 * SELECTED, "others came and went"


@pytest.mark.parametrize("case", ["adamw", "sgd", "whole weights"])
def test_under_reset_nothing_is_held_of_devices_that_trained_before(case):
    fleet, state = fleet_of(case, "reset")
    for record, _, kept in rounds_of(fleet, state):
        assert not kept
        for side in (fleet.devices, *fleet.servers.trunks.values()):
            stack = side.segment.stack
            assert stack.seated.keys() == set(record.participants)
            assert len(stack.values) == len(stack.grads) == len(stack.rows) == SELECTED
            assert len(side.optimizer.state) <= SELECTED and not side.moments._rows


def test_under_keep_a_row_returns_with_its_own_steps_and_the_absent_do_not_move():
    fleet, state = fleet_of("adamw", "keep")
    took = Counter()
    before = {}
    for record, _, kept in rounds_of(fleet, state):
        for device, rows in zip(record.participants, record.device_samples, strict=True):
            took[str(device)] += -(-rows // LEARN.batch)
        own = kept["servers"][0]
        assert {row: int(memory["step"]) for row, memory in own.items()} == took
        away = [row for row in before if int(row) not in record.participants]
        assert_same_bits({row: own[row] for row in away}, {row: before[row] for row in away})
        before = {row: {name: one.clone() for name, one in memory.items()} for row, memory in own.items()}


@pytest.mark.parametrize("case", ["adamw", "sgd", "whole weights", "labels at home", "two servers"])
def test_momenta_in_files_are_those_in_memory(case, tmp_path):
    here, start = fleet_of(case, "keep")
    away, same = fleet_of(case, "keep")
    away.keep_in(tmp_path / "momenta", 2)
    for (record, mine, _), (_, theirs, _) in zip(rounds_of(here, start), rounds_of(away, same), strict=True):
        assert_same_bits(mine, theirs)
        for side in (away.devices, *away.servers.trunks.values()):
            assert len(side.optimizer.state) <= len(record.participants) and not side.moments._rows
    assert (tmp_path / "momenta" / "server-0.pages").stat().st_size > 0


def test_a_fleet_is_put_back_whoever_has_seats():
    fleet, state = fleet_of("adamw", "keep")
    whole = [adapters for _, adapters, _ in rounds_of(fleet, state)]
    began, state = fleet_of("adamw", "keep")
    rounds = train(began, state, lambda _: Score(0.0, 0.0), range(ROUNDS))
    for _ in range(ROUNDS // 2):
        _, state = next(rounds)
    again, _ = fleet_of("adamw", "keep")
    again.restore(began.state())
    assert_same_bits(again.state(), began.state())
    rest = train(again, state, lambda _: Score(0.0, 0.0), range(ROUNDS // 2, ROUNDS))
    assert_same_bits([found for _, found in rest][-1], whole[-1])


def test_a_stack_gives_seats_in_order_and_from_the_start():
    stack = AdapterStack({"w": torch.tensor([1.0, 2.0])}, copies=100, seats=3)
    assert stack.copies == 100 and stack.values.shape == (3, 2) and stack.seated == {0: 0, 1: 1, 2: 2}
    stack.seat([70, 5, 40])
    assert stack.seated == {5: 0, 40: 1, 70: 2} and stack.values.tolist() == [[1, 2]] * 3
    stack.write(40, {"w": torch.tensor([3.0, 4.0])})
    stack.seat([40, 5])
    assert stack.read(40)["w"].tolist() == [3, 4], "who has a seat keeps it"
    stack.begin([70, 5])
    assert stack.active == [70, 5] and stack.moving == [2, 0]
    stack.seat([41])
    assert stack.seated == {41: 0} and stack.read(41)["w"].tolist() == [1, 2] and not stack.active
    with pytest.raises(AssertionError, match="4 rows want 3 seats"):
        stack.seat([1, 2, 3, 4])


def test_a_pass_of_seated_rows_uses_their_own_numbers():
    stack = AdapterStack({"w": torch.ones(2)}, copies=100, seats=3)
    stack.seat([7, 30, 90])
    for rows, direct in (([7, 30, 90], True), ([30, 90], False), ([90, 7], False)):
        gathered = stack.gather(Rows.of(rows, [1] * len(rows)).copies)
        assert gathered is not None and bool(gathered.tensors) != direct
        assert set(gathered.places) >= set(rows)
    assert AdapterStack({"w": torch.ones(2)}, 3, seats=3).gather([0, 1, 2]) is None, "all have one"
