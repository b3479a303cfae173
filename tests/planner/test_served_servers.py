"""The association that a served run plans from what its rounds measured."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sflam.learn.settings.association import AssociationSettings
from sflam.planner.served_servers import ServedServers
from tests.planner.served_worlds import World, drawn

RULE = AssociationSettings(mode="measured", saves=0.1, keep_rounds=1)
SLOW = World(np.ones(3), np.zeros((3, 2)), np.array([0.1, 0.01]), np.array([10, 10, 10]))
"""Server 0 takes ten times the seconds of server 1."""


def planner(settings=RULE, servers=(0, 1)):
    return ServedServers(settings, servers)


def test_a_slow_server_is_left_and_what_is_planned_is_what_a_round_then_takes():
    plans = planner()
    assert plans.plan((0, 0, 1)) is None  # nothing is known
    plans.note(SLOW.record(0, (0, 0, 1)))
    found = plans.plan((0, 0, 1))
    assert found.server_of == {0: 1, 1: 1}
    assert found.stays_s == pytest.approx(SLOW.seconds((0, 0, 1))) == pytest.approx(3.0)
    assert found.seconds == pytest.approx(SLOW.seconds((1, 1, 1))) == pytest.approx(1.3)
    assert str(found) == "a round of 1.3 s instead of 3 s"


def test_what_saves_too_little_moves_nothing():
    few = AssociationSettings(mode="measured", saves=0.6)
    plans = planner(few)
    plans.note(SLOW.record(0, (0, 0, 1)))
    assert plans.plan((0, 0, 1)) is None  # 57 % are saved


def test_who_is_ordered_or_was_never_measured_stays():
    plans = planner()
    plans.note(SLOW.record(0, (0, 0, 1), without=(1,)))
    assert plans.plan((0, 0, 1)).server_of == {0: 1}
    plans.note(SLOW.record(1, (0, 0, 1)))
    assert plans.plan((0, 0, 1), fixed=[0]).server_of == {1: 1}


def test_a_round_in_which_a_trunk_server_had_the_devices_of_another_shows_nothing():
    plans = planner()
    plans.note(SLOW.record(0, (0, 0, 1), away=True))
    assert plans.plan((0, 0, 1)) is None


def test_one_odd_round_moves_nothing():
    alike = World(np.ones(2), np.zeros((2, 2)), np.array([0.01, 0.01]), np.array([10, 10]))
    odd = World(np.ones(2), np.array([[9.0, 0.0], [0.0, 0.0]]), np.array([0.01, 0.01]), np.array([10, 10]))
    plans = planner()
    for round, world in enumerate((alike, odd, alike)):
        plans.note(world.record(round, (0, 1)))
    assert plans.plan((0, 1)) is None


def test_a_way_that_turns_out_worse_is_left_again_and_not_tried_again():
    """Server 1 is fast, but device 1 is far from it, which shows once it is there."""
    far = World(np.ones(2), np.array([[0.1, 0.1], [0.1, 8.0]]), np.array([0.1, 0.01]), np.array([20, 20]))
    plans, now, course = planner(), (0, 0), []
    for round in range(8):
        plans.note(far.record(round, now))
        found = plans.plan(now)
        moved = {} if found is None else found.server_of
        now = tuple(moved.get(device, server) for device, server in enumerate(now))
        course.append(now)
    assert course[0] == (0, 1) and set(course[1:]) == {(1, 0)}


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(2, 3), st.booleans())
def test_it_comes_to_rest_and_not_above_where_it_began(seed, devices, servers, noisy):
    """Whatever the seconds: each pair is tried once at most, and going back is always among what is compared.

    Noise of 4 % each way is less than the share that a move must save.
    """
    world, rng = drawn(seed, devices, servers), np.random.default_rng(seed) if noisy else None
    start = tuple(np.random.default_rng(seed + 1).integers(0, servers, devices).tolist())
    plans, now, course = planner(servers=range(servers)), start, []
    for round in range(40):
        plans.note(world.record(round, now, noise=rng))
        found = plans.plan(now)
        if found is not None:
            now = tuple(found.server_of.get(device, server) for device, server in enumerate(now))
        course.append(now)
    if not noisy:
        assert len(set(course[-10:])) == 1
        assert world.seconds(course[-1]) <= world.seconds(start) / (1 - RULE.saves) * (1 + 1e-9)
    moves = sum(one != other for one, other in pairwise(course))
    assert moves <= devices * (servers - 1) + 3
