"""Who is waited for before a round: each absent device once, never below the quorum, and always in the open."""

from __future__ import annotations

import json

import pytest

from sflam.serve.dispatch import Dispatch
from sflam.serve.event_log import EventLog
from sflam.serve.gathering import Gathering
from sflam.serve.session import Session

FOUR = {0, 1, 2, 3}


class Hall:
    """A gathering whose clock moves on by a second whenever it is looked at, and what happens at some seconds."""

    def __init__(self, folder, quorum=2, patience=60.0, seconds=300.0):
        self.now, self.events, self.lines, self.seen = 0.0, {}, [], []
        self.session = Session(quorum, patience=patience)
        self.dispatch = Dispatch(self.session, clock=self.clock)
        self.log = EventLog(folder / "served.jsonl")
        self.gathering = Gathering(self.dispatch, seconds, self.lines.append, self.log)

    def clock(self):
        self.now += 1.0
        for at in sorted(at for at in self.events if at <= self.now):
            self.events.pop(at)()
        return self.now

    def come(self, *devices):
        for device in devices:
            self.session.hello(device, 8, self.now)

    def wait(self, *alive, needed=FOUR):
        """Return who is there, and how many seconds that took; those ``alive`` are heard of all the while."""
        began = self.now

        def found():
            self.seen.append(self.session.waited_for(self.now))
            for device in self.session.samples.keys() & set(alive):
                self.session.heard(device, self.now)
            return set(needed)

        present = self.gathering.wait(0, found)
        return present, self.now - began


@pytest.fixture
def hall(tmp_path, monkeypatch):
    monkeypatch.setattr("sflam.serve.dispatch.TICK", 0.0001)
    made = Hall(tmp_path)
    yield made
    made.log.close()


def test_one_that_never_came_is_waited_for_once(hall):
    hall.come(0, 1)
    present, seconds = hall.wait(0, 1)
    assert present == (0, 1) and 300 <= seconds < 320
    for _ in range(5):
        assert hall.wait(0, 1)[1] < 5


def test_one_that_fell_silent_was_waited_for_already(hall):
    hall.come(0, 1, 2, 3)
    assert hall.wait(0, 1)[1] < 5
    hall.now += 100
    hall.session.heard(0, hall.now)
    hall.session.heard(1, hall.now)
    assert hall.wait(0, 1) == ((0, 1), pytest.approx(3, abs=3))


def test_one_that_comes_back_takes_part_and_is_waited_for_again(hall):
    hall.come(0, 1, 2)
    hall.wait(0, 1, 2)
    hall.come(3)
    assert hall.wait(0, 1, 2, 3)[0] == (0, 1, 2, 3)
    assert 3 not in hall.gathering._given_up


def test_those_who_come_in_the_wake_of_the_quorum_take_part(hall):
    hall.come(0)
    hall.events = {1000.0: lambda: hall.come(1), 1010.0: lambda: hall.come(2, 3)}
    assert hall.wait(0, 1)[0] == (0, 1, 2, 3)


def test_below_the_quorum_there_is_no_limit_and_everybody_can_see_it(hall):
    hall.come(0)
    hall.events = {5000.0: lambda: hall.come(1, 2, 3)}
    assert hall.wait(0)[1] > 4000
    found = hall.seen[20]
    assert (found.devices, found.seconds, found.enough) == ((1, 2, 3), None, False)
    assert hall.lines == ["round 1: waiting for devices 1, 2, 3 (1 are here, at least 2 needed)"]
    (event,) = map(json.loads, hall.log.path.read_text().splitlines())
    assert (event["event"], event["devices"], event["present"], event["quorum"]) == (
        "waiting",
        [1, 2, 3],
        1,
        2,
    )


def test_a_limit_is_shown_too(hall):
    hall.come(0, 1)
    hall.wait(0, 1)
    assert "for at most 30" in hall.lines[0] or "for at most 29" in hall.lines[0]
    assert hall.seen[20].enough and 200 < hall.seen[20].seconds < 300
    assert hall.session.waited_for(hall.now).devices == ()
