"""How long a round may last: from what the last ones took, and twice a device's own time after the quorum."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sflam.config import load
from sflam.learn.selection import select_devices
from sflam.serve.pace import FIRST, Pace
from sflam.serve.serve import Serving
from sflam.serve.web_server import Listen


def test_a_deadline_follows_from_what_rounds_took():
    pace = Pace(60.0)
    assert pace.deadline() == FIRST
    pace.closed({0: 10.0, 1: 500.0}, {}, 500.0)
    assert pace.deadline() == 2000.0 and pace.deadline(opening=2) == 4000.0
    for _ in range(5):
        pace.closed({0: 10.0}, {}, 10.0)
    assert pace.deadline() == 600.0
    assert Pace(60.0, deadline=7.0).deadline(2) == 7.0


def test_after_the_quorum_a_device_has_twice_its_own_time():
    pace = Pace(5.0)
    assert pace.grace(10.0, [2]) == 20.0  # nothing is known: three times what the others took
    assert pace.grace(1.0, [2]) == 5.0
    pace.closed({0: 10.0, 2: 80.0}, {}, 80.0)
    assert pace.grace(10.0, [2]) == 150.0 and pace.grace(10.0, [0]) == 10.0
    assert Pace(5.0, grace=0.0).grace(10.0, [2]) == 0.0


def test_a_slow_device_that_was_left_out_is_waited_for_next_time():
    pace = Pace(5.0)
    pace.closed({0: 10.0}, {1: (6, 12), 2: (0, 12)}, 20.0)  # 1 would have been done after 40 s, 2 did nothing
    assert pace.grace(10.0, [1]) == 70.0 and pace.grace(10.0, [2]) == 20.0
    pace.closed({0: 10.0, 1: 35.0}, {}, 35.0)
    assert pace.grace(10.0, [1]) == 60.0 and pace.deadline() == 140.0


def test_one_that_drags_its_feet_costs_one_long_round():
    pace, took = Pace(5.0), []
    for _ in range(6):
        took.append(10.0 + pace.grace(10.0, [1]))
        pace.closed({0: 10.0}, {1: (1, 1000)}, took[-1])
    assert took == [30.0, 180.0, 30.0, 30.0, 30.0, 30.0]
    pace.closed({0: 10.0, 1: 30.0}, {}, 30.0)
    assert pace.grace(10.0, [1]) == 50.0  # it has delivered


@pytest.mark.parametrize(("devices", "quorum"), [(1, 1), (2, 1), (3, 2), (4, 3), (8, 6), (10, 8), (100, 75)])
def test_three_quarters_of_a_fleet_are_enough_by_default(tmp_path, devices, quorum):
    job = load(None, [f"fleet.devices={devices}"])
    serving = Serving(listen=Listen(), roster=tmp_path / "devices.json")
    assert serving.fewest(job) == quorum
    assert Serving(listen=Listen(), roster=tmp_path / "devices.json", quorum=0).fewest(job) == devices


def test_a_job_may_say_its_quorum_its_grace_and_how_many_more_are_taken(tmp_path):
    serving = Serving(listen=Listen(), roster=tmp_path / "devices.json")
    job = load(None, ["fleet.quorum=4", "fleet.grace_s=2.5"])
    assert (serving.fewest(job), serving.grace_of(job)) == (4, 2.5)
    given = replace(serving, quorum=6, grace=1.0)
    assert (given.fewest(job), given.grace_of(job)) == (6, 1.0)
    job = load(None, ["fleet.selected=4", "fleet.over_select=0.25"])
    assert len(select_devices(job.fleet, 0, 0)) == 5
    assert (serving.fewest(job), serving.grace_of(job)) == (4, 0.0)
    assert serving.grace_of(load()) is None
