"""Devices in rounds of their own: what is answered again, given up, taken in order; and what is not asked of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sflam import config
from sflam.errors import ConfigError, Refused
from sflam.records.buffer import Buffer
from sflam.records.history import RoundRecord
from sflam.records.served_round import ServedRound
from sflam.report.terminal.loop_lines import loop_lines
from sflam.serve.buffered.paced_session import PAUSE, PacedSession
from sflam.serve.serve import Serving
from sflam.serve.session import Again, Fresh, Verdict
from sflam.serve.web_server import Listen


def opened(devices=3, exchanges=1):
    session = PacedSession(patience=10.0)
    session.attempt = 0
    session.begin_version(0, 0.0)
    for device in range(devices):
        session.hello(device, 8, 0.0)
        session.begin(device, 0, device + 1, exchanges, 0.0)
    return session


def hand_in(session, device, round, attempt, now=0.0):
    assert session.exchange(device, round, attempt, 0, now) == Fresh()
    assert session.answer(device, attempt, 0, b"answer", now)
    return session.deliver(device, round, attempt, ("trained", device), now, b"seal")


def status(call, *arguments):
    with pytest.raises(Refused) as refused:
        call(*arguments)
    return refused.value.status


def test_each_device_is_in_its_own_round_and_what_came_is_taken_in_order():
    session = opened()
    assert session.verdict(0.0) is Verdict.RUNNING
    assert hand_in(session, 2, 0, 3) and hand_in(session, 0, 0, 1, 1.0)
    assert session.verdict(1.0) is Verdict.COMPLETE and session.ready(1.0) == ()
    assert [session.take().device for _ in range(2)] == [2, 0] and session.take() is None
    assert session.ready(1.0) == (0, 2)
    session.begin(2, 1, 4, 1, 1.0)
    assert [session.place_of(device) for device in range(3)] == [(0, 1), (0, 2), (1, 4)]
    assert hand_in(session, 1, 0, 2) and hand_in(session, 2, 1, 4)
    assert status(session.exchange, 0, 1, 4, 0, 2.0) == 409, "the opening is another device's"


def test_an_upload_whose_answer_was_lost_is_answered_again_after_the_next_round_began():
    session = opened(1)
    assert hand_in(session, 0, 0, 1)
    session.take()
    session.begin(0, 1, 2, 1, 1.0)
    assert session.deliver(0, 0, 1, ("trained", 0), 2.0, b"seal") is False and not session.came
    assert status(session.deliver, 0, 0, 1, ("other", 0), 2.0, b"other") == 409, "two machines are one device"
    assert status(session.exchange, 0, 0, 1, 0, 2.0) == 409
    assert session.exchange(0, 1, 2, 0, 2.0) == Fresh() and session.answer(0, 2, 0, b"one", 2.0)
    assert session.exchange(0, 1, 2, 0, 2.0) == Again(b"one")


def test_who_asks_for_a_later_opening_gives_its_own_up_and_begins_anew_after_a_pause():
    session = opened(2, exchanges=2)
    assert session.exchange(0, 0, 1, 0, 0.0) == Fresh() and session.answer(0, 1, 0, b"one", 0.0)
    session.asked(0, -1, 0.0)
    session.asked(0, 0, 0.0)
    assert session.seats[0].active, "a device that has just come asks so"
    session.asked(0, 1, 0.0)
    assert not session.seats[0].active and session.seats[1].active
    assert status(session.exchange, 0, 0, 1, 1, 0.0) == 409
    assert session.ready(PAUSE / 2) == () and session.ready(PAUSE) == (0,)
    session.begin(0, 0, 3, 2, PAUSE)
    assert session.exchange(0, 0, 3, 0, PAUSE) == Fresh()


def test_an_absent_device_and_one_that_may_not_begin_are_not_ready():
    session = opened(3)
    for device in range(3):
        hand_in(session, device, 0, device + 1)
        session.take()
    session.heard(1, 20.0)
    session.heard(2, 20.0)
    session.may_begin = lambda: lambda device: device != 2
    assert session.ready(20.0) == (1,) and session.verdict(20.0) is Verdict.COMPLETE
    session.may_begin = lambda: lambda device: False
    assert session.verdict(20.0) is Verdict.RUNNING
    assert session.waited_for(20.0).enough and not session.waited_for(99.0).enough


@pytest.mark.parametrize(("option", "value"), [("quorum", 2), ("deadline", 60.0), ("grace", 0.0)])
def test_options_of_rounds_that_end_for_all_are_refused(option, value):
    job = config.load(None, ["learn.sync=buffered"])
    Serving(listen=Listen(port=0), roster=Path("devices.json"), quorum=0).check(job)
    serving = Serving(listen=Listen(port=0), roster=Path("devices.json"), **{option: value})
    with pytest.raises(ConfigError, match=f"--{option} is {value:g}; .*leave --{option} out"):
        serving.check(job)


def test_the_lines_under_the_table_have_how_far_behind_updates_were():
    each = {name: () for name in ("finish", "upload_s", "away_s", "bytes_up", "bytes_down", "payload_up",
                                  "payload_down", "cuts", "bits_up", "bits_down")}  # fmt: skip
    buffer = Buffer(
        devices=(0, 1), staleness=(0, 3), weights=(1.0, 0.5), begun=(0.0, 0.0), arrived=(1.0, 2.0),
        refused=(2,), refused_staleness=(9,), numbers=(0, 0), refused_numbers=(0,),
    )  # fmt: skip
    measured = ServedRound(seconds=1.0, openings=1, server_s=0.1, buffer=buffer, **each)
    assert (
        "2 updates were 1.5 versions behind on average, 3 at most; 1 further behind were thrown away"
        in list(loop_lines([RoundRecord(round=0, loss=1.0, measured=measured)]))
    )
