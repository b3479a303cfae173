"""The session by itself: what is computed once, answered again, or refused."""

from __future__ import annotations

import pytest

from sflam.errors import Refused
from sflam.serve.session import Again, Fresh, Phase, Session, Underway, Verdict


def opened(*, legs=1, exchanges=2, devices=3, quorum=2, deadline=100.0):
    session = Session(quorum, legs=legs, patience=10.0)
    for device in range(devices):
        session.hello(device, 8, 0.0)
    session.open(4, 7, dict.fromkeys(range(devices), exchanges), deadline)
    return session


def status(call, *arguments):
    with pytest.raises(Refused) as refused:
        call(*arguments)
    return refused.value.status


def make(session, device, number, now=0.0):
    assert session.exchange(device, 4, 7, number, now) == Fresh()
    assert session.answer(device, 7, number, b"%d" % number)


def test_an_exchange_is_computed_once_and_answered_as_often_as_asked():
    session = opened()
    assert session.exchange(0, 4, 7, 0, 0.0) == Fresh()
    assert session.exchange(0, 4, 7, 0, 0.0) == Underway()
    assert session.answer(0, 7, 0, b"one") and not session.answer(0, 7, 0, b"two")
    assert [session.exchange(0, 4, 7, 0, 0.0) for _ in range(2)] == [Again(b"one")] * 2


@pytest.mark.parametrize(
    ("device", "round", "attempt", "number"),
    [(0, 4, 7, 1), (0, 4, 6, 0), (0, 3, 7, 0), (0, 4, 8, 0), (9, 4, 7, 0)],
)
def test_any_other_number_round_or_attempt_is_refused(device, round, attempt, number):
    assert status(opened().exchange, device, round, attempt, number, 0.0) == 409


def test_an_answer_is_forgotten_when_the_device_moves_on():
    session = opened(exchanges=3)
    make(session, 0, 0)
    assert session.exchange(0, 4, 7, 1, 0.0) == Fresh()
    assert status(session.exchange, 0, 4, 7, 0, 0.0) == 409
    assert list(session.seats[0].answers) == []


def test_with_labels_at_home_both_answers_of_a_step_are_kept():
    session = opened(legs=2, exchanges=4)
    make(session, 0, 0)
    make(session, 0, 1)
    assert session.exchange(0, 4, 7, 0, 0.0) == Again(
        b"0"
    )  # a device that died after its backward begins the step anew
    assert session.exchange(0, 4, 7, 1, 0.0) == Again(b"1")
    make(session, 0, 2)
    assert status(session.exchange, 0, 4, 7, 1, 0.0) == 409


def test_adapters_come_after_the_last_exchange_and_count_once():
    session = opened()
    assert status(session.deliver, 0, 4, 7, "early", 0.0) == 409
    make(session, 0, 0)
    make(session, 0, 1)
    assert session.deliver(0, 4, 7, "first", 0.0) and not session.deliver(0, 4, 7, "second", 0.0)
    assert status(session.exchange, 0, 4, 7, 2, 0.0) == 409
    assert session.seats[0].result == "first"


def finish(session, device):
    for number in range(session.seats[device].next, session.seats[device].exchanges):
        make(session, device, number)
    session.deliver(device, 4, 7, device, 0.0)


def test_a_round_ends_when_all_have_delivered_or_at_the_deadline_with_a_quorum():
    session = opened()
    finish(session, 0)
    assert session.verdict(99.0) is Verdict.RUNNING
    assert session.verdict(100.0) is Verdict.SHORT
    finish(session, 1)
    assert session.verdict(99.0) is Verdict.COMPLETE  # device 2 has been silent for too long
    session.heard(2, 98.0)
    assert session.verdict(99.0) is Verdict.RUNNING and session.verdict(100.0) is Verdict.COMPLETE
    finish(session, 2)
    assert session.verdict(1.0) is Verdict.COMPLETE
    assert session.close() == {0: 0, 1: 1, 2: 2} and session.phase is Phase.WAITING


def test_a_dropped_device_is_refused_and_waited_for_no_more():
    session = opened()
    make(session, 2, 0)
    session.drop(2)
    assert status(session.exchange, 2, 4, 7, 1, 0.0) == 409
    finish(session, 0)
    finish(session, 1)
    assert session.verdict(0.0) is Verdict.COMPLETE and session.close() == {0: 0, 1: 1}
    session.open(5, 8, {0: 1, 2: 1}, 1.0)
    assert session.exchange(2, 5, 8, 0, 0.0) == Fresh()  # it may take part again


def test_a_late_answer_of_a_closed_round_is_not_kept():
    session = opened()
    assert session.exchange(0, 4, 7, 0, 0.0) == Fresh()
    session.close()
    session.open(4, 8, {0: 2}, 1.0)
    assert session.exchange(0, 4, 8, 0, 0.0) == Fresh()
    assert not session.answer(0, 7, 0, b"old") and session.answer(0, 8, 0, b"new")


def test_who_is_silent_for_too_long_is_not_awaited():
    session = opened()
    session.heard(1, 5.0)
    assert session.present(12.0) == (1,) and session.awaited(12.0) == (1,)
    session.hello(0, 8, 12.0)
    assert session.awaited(12.0) == (0, 1)


def test_draining_asks_to_come_again_and_the_end_is_final():
    session = opened()
    session.drain()
    with pytest.raises(Refused) as refused:
        session.exchange(0, 4, 7, 0, 0.0)
    assert refused.value.status == 503 and refused.value.retry
    session.end()
    session.drain()
    assert session.phase is Phase.ENDED
    assert status(session.exchange, 0, 4, 7, 0, 0.0) == 409


def test_samples_may_change_between_rounds_but_not_within_one():
    session = opened()
    assert status(session.hello, 0, 9, 0.0) == 409
    assert session.samples[0] == 8
    session.close()
    session.hello(0, 9, 0.0)
    assert session.samples[0] == 9


def test_a_step_without_rows_is_no_exchange():
    session = Session(1, legs=2)
    session.hello(0, 9, 0.0)
    session.open(0, 1, {0: 4}, 10.0, {0: (0, 3, 0, 2)})
    seat = session.seat(0, 0, 1)
    assert [seat.exchange(step, leg, 2) for step in (1, 3) for leg in (0, 1)] == [0, 1, 2, 3]
    assert [seat.step(number, 2) for number in range(4)] == [1, 1, 3, 3]
    for step in (0, 2, 4, 10**9):
        with pytest.raises(Refused, match=f"no rows in step {step}"):
            seat.exchange(step, 0, 2)


def test_devices_without_rows_make_no_round_complete():
    session = Session(1, patience=5.0)
    for device in range(2):
        session.hello(device, 9, 0.0)
    session.open(4, 7, {0: 0, 1: 1}, 100.0, {0: (0, 0), 1: (0, 3)})
    session.deliver(0, 4, 7, "nothing", 0.0)
    assert session.verdict(50.0) is Verdict.RUNNING  # device 1 is silent, and nothing has been learned
    assert session.verdict(100.0) is Verdict.SHORT
    finish(session, 1)
    assert session.verdict(50.0) is Verdict.COMPLETE


def graceful(**options):
    """Return a round of three devices with a quorum of two that opened at 0, and 20 s of grace."""
    session = Session(2, patience=10.0, grace=lambda elapsed, devices: 20.0, **options)
    for device in range(3):
        session.hello(device, 8, 0.0)
    session.open(4, 7, dict.fromkeys(range(3), 2 * session.legs), 1000.0, now=0.0)
    return session


def test_after_the_quorum_a_round_goes_on_for_the_grace_alone():
    session = graceful()
    for device in (0, 1):
        for number in range(2):
            assert session.exchange(device, 4, 7, number, 1.0) == Fresh()
            session.answer(device, 7, number, b"x", 1.0)
    session.deliver(0, 4, 7, 0, 1.0)
    assert session.waited_for(1.0).seconds == 999.0
    session.deliver(1, 4, 7, 1, 2.0)
    assert session.exchange(2, 4, 7, 0, 5.0) == Fresh()
    session.answer(2, 7, 0, b"x", 21.0)
    assert session.waited_for(5.0).devices == (2,) and session.waited_for(5.0).seconds == 17.0
    assert session.verdict(21.9) is Verdict.RUNNING and session.verdict(22.0) is Verdict.COMPLETE


def test_a_device_that_asks_and_asks_but_makes_no_exchange_is_not_awaited():
    session = graceful()
    for now in range(0, 40, 2):
        session.heard(1, float(now))
        session.heard(2, float(now))
    assert session.present(39.0) == (1, 2) and session.awaited(9.0) == (0, 1, 2)
    assert session.awaited(39.0) == ()
    assert session.exchange(1, 4, 7, 0, 39.0) == Fresh()
    assert session.awaited(60.0) == (1,)  # the server's own time is not the device's
    session.answer(1, 7, 0, b"x", 60.0)
    assert session.awaited(69.0) == (1,)


def test_one_that_comes_back_has_its_time_again_once_an_exchange():
    session = graceful()
    session.hello(2, 8, 30.0)
    assert session.awaited(31.0) == (2,)
    session.hello(2, 8, 45.0)
    assert session.awaited(46.0) == () and session.present(46.0) == (2,)
    assert session.exchange(2, 4, 7, 0, 46.0) == Fresh()
    session.answer(2, 7, 0, b"x", 46.0)
    for now in (60.0, 70.0):
        assert session.exchange(2, 4, 7, 0, now) == Again(b"x")
    assert session.awaited(69.0) == (2,) and session.awaited(71.0) == ()


def test_a_body_that_arrives_is_an_exchange_made_within_four_times_the_patience():
    session = graceful()
    session.seats[2].receiving += 1
    for now in (20.0, 39.0, 41.0):
        session.heard(2, now)
        assert session.awaited(now) == ((2,) if now < 40 else ())


def test_whether_the_run_can_go_on_is_known_at_any_time():
    session = graceful()
    assert session.waited_for(1.0).enough
    session.heard(1, 20.0)
    assert not session.waited_for(20.0).enough  # the others are silent
    session.close()
    assert not session.waited_for(20.0).enough
    session.heard(0, 21.0)
    assert session.waited_for(21.0).enough
    session.drain()
    assert not session.waited_for(21.0).enough
