"""Poisson draws: served is simulated, steps without rows are no exchanges, and losses count the rows expected."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sflam.errors import ServeError
from sflam.learn.drawing import drawn_rows
from sflam.link.drawing import batches_for
from sflam.link.place import Place
from sflam.link.standing import standing_of
from sflam.model.adapters import state_of
from tests.learn.builders import IDENTITY, LEARN, adapted, assert_equal_states, local_fleet
from tests.learn.test_server import frames_of, trunk_of
from tests.serve.threads import KINDS, SIZES, Rig, simulated

LOOP = replace(LEARN, rounds=2, batch=1, local_steps=4, canonical=True)
JOB = {"cuts": (1, 0, 2), "labels": "server", "quant": IDENTITY, "learn": LOOP, "sampling": "poisson"}

pytestmark = pytest.mark.usefixtures("one_thread")


def test_some_steps_of_the_tests_are_empty_for_one_device_and_for_all():
    each = [drawn_rows(LOOP, "poisson", dict(enumerate(SIZES)), 3, round) for round in range(2)]
    sizes = np.array([list(found.values()) for found in each])
    assert (sizes == 0).any() and (sizes > 1).any()


@KINDS
@pytest.mark.parametrize("more", [{}, pytest.param({"labels": "device"}, marks=pytest.mark.slow)])
def test_served_is_simulated(tmp_path, lean, more):
    wanted, state = simulated("bert", **(JOB | more))
    records, found = Rig(tmp_path, "bert", lean=lean, **(JOB | more)).run()
    if lean:
        assert_equal_states(found, state)
    else:
        assert all(torch.equal(found[name], state[name]) for name in state)
    assert [r.device_samples for r in records] == [r.device_samples for r in wanted]
    assert [r.bytes_up for r in records] == [r.bytes_up for r in wanted]


def test_one_trunk_for_all_is_served_as_simulated(tmp_path):
    learn = replace(LOOP, method="sfl-v2", server_update="batched", weights="samples")
    _, state = simulated("bert", **(JOB | {"learn": learn}))
    _, found = Rig(tmp_path, "bert", **(JOB | {"learn": learn})).run()
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_a_round_in_which_nothing_comes_changes_nothing():
    backbone, model, examples = adapted("vit")
    parts = [np.arange(20), np.arange(20, 40)]
    options = JOB | {"cuts": (1, 1), "learn": replace(LOOP, local_steps=1)}
    fleet = local_fleet(backbone, model, examples, parts, **options)
    empty = next(
        number
        for number in range(99)
        if not any(map(sum, drawn_rows(fleet.learn, "poisson", {0: 20, 1: 20}, fleet.seed, number).values()))
    )
    start = state_of(model)
    fleet.download(empty, (0, 1), start)
    steps = fleet.local_steps(empty, (0, 1))
    assert steps.device_steps == 0 and steps.bytes_up == 0 and steps.loss == 0
    found = fleet.average(empty, (0, 1), steps).state
    assert all(torch.allclose(found[name], start[name]) for name in start)


@pytest.mark.parametrize("budget", [None, 2])
def test_losses_count_the_rows_that_are_expected(budget):
    """Half of the rows expected: half the gradient, in the trunk and back to the device, and the same mean loss."""
    backbone, model, examples = adapted("bert")
    frames = frames_of(backbone, model, examples, [1], [np.arange(4)])
    found = []
    for expected in ({}, {0: 8}):
        trunk = trunk_of(backbone, model, [1])
        trunk.expected = expected
        if budget:
            trunk._chunks = lambda frames: [{0: np.arange(k, k + 2)} for k in (0, 2)]
        (answer,) = trunk.differentiate(frames, 1)
        found.append((answer, trunk.segment.stack.grads.clone()))
    (plain, own), (half, less) = found
    assert half.loss == pytest.approx(plain.loss)
    assert torch.allclose(half.gradient * 2, plain.gradient) and torch.allclose(less * 2, own)
    assert own.abs().max() > 0


@pytest.mark.parametrize("shares", [[1, 2], [0, 30, 1, 1], "no", [0, 6, 0, 0], None])
def test_a_server_cannot_ask_for_rows_that_were_not_agreed(shares):
    place = Place(0, "run", 3, np.arange(5), "poisson")
    answer = {
        "phase": "open", "known": True, "seated": True, "delivered": False, "round": 0, "attempt": 0,
        "exchange": 0, "shares": shares,
    }  # fmt: skip
    with pytest.raises(
        ServeError, match=r"shares are no list of rows|4 steps of up to 5 of 5 samples were agreed"
    ):
        batches_for(place, LOOP, standing_of(answer, "identity"), None)
