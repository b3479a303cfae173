"""Any interleaving of devices, repeats, losses and deadlines keeps the session's promises."""

from __future__ import annotations

import copy

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sflam.errors import Refused
from sflam.serve.session import Again, Fresh, Phase, Session, Underway, Verdict

DEVICES, STEPS = 3, 3
device = st.integers(0, DEVICES - 1)


class Interleaved(RuleBasedStateMachine):
    """Devices that repeat, jump and fall silent; a plain model remembers what was computed."""

    def __init__(self) -> None:
        super().__init__()
        self.legs, self.round, self.attempt, self.now = 2, 0, 0, 0.0
        self.session = Session(2, legs=self.legs, patience=5.0)
        self.computed: dict[tuple[int, int], bytes] = {}
        self.running: set[int] = set()
        self.dropped: set[int] = set()
        self.delivered: dict[int, str] = {}

    @property
    def open(self) -> bool:
        return self.session.phase is Phase.OPEN

    @rule(device=device)
    def hello(self, device: int) -> None:
        self.session.hello(device, 8, self.now)

    @precondition(lambda self: not self.open)
    @rule(length=st.integers(1, 10))
    def opens(self, length: int) -> None:
        self.attempt += 1
        plan = dict.fromkeys(range(DEVICES), STEPS * self.legs)
        self.session.open(self.round, self.attempt, plan, self.now + length)
        self.computed, self.running, self.dropped, self.delivered = {}, set(), set(), {}

    @precondition(lambda self: self.open)
    @rule(device=device, number=st.integers(0, STEPS * 2), late=st.integers(0, 1))
    def exchange(self, device: int, number: int, late: int) -> None:
        due = sum(d == device for d, _ in self.computed)
        try:
            output = self.session.exchange(device, self.round, self.attempt - late, number, self.now)
        except Refused as refused:
            assert refused.status == 409
            current = not late and device not in self.dropped and device not in self.delivered
            assert not (current and number == due < STEPS * self.legs)
            return
        assert not late and device not in self.dropped
        if output == Fresh():
            assert number == due and device not in self.running
            self.running.add(device)
        elif output == Underway():
            assert number == due and device in self.running
        else:
            assert output == Again(self.computed[device, number])
            assert number // self.legs == (due - (device not in self.running)) // self.legs or number < due

    @precondition(lambda self: self.open)
    @rule(device=device)
    def answers(self, device: int) -> None:
        due = sum(d == device for d, _ in self.computed)
        body = b"%d %d" % (device, due)
        kept = self.session.answer(device, self.attempt, due, body)
        assert kept == (device in self.running)
        if kept:
            self.computed[device, due] = body
            self.running.discard(device)

    @precondition(lambda self: self.open)
    @rule(device=device, what=st.sampled_from(["a", "b"]))
    def delivers(self, device: int, what: str) -> None:
        due = sum(d == device for d, _ in self.computed)
        try:
            first = self.session.deliver(device, self.round, self.attempt, what, self.now)
        except Refused:
            assert due < STEPS * self.legs or device in self.dropped
            return
        assert first == (device not in self.delivered)
        self.delivered.setdefault(device, what)

    @precondition(lambda self: self.open)
    @rule(device=device)
    def drops(self, device: int) -> None:
        self.session.drop(device)
        self.dropped.add(device)
        self.running.discard(device)
        self.delivered.pop(device, None)

    @rule(seconds=st.floats(0, 4))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.open and self.session.verdict(self.now) is not Verdict.RUNNING)
    @rule()
    def closes(self) -> None:
        verdict = self.session.verdict(self.now)
        assert (verdict is Verdict.COMPLETE) == (len(self.delivered) >= 2)
        assert self.session.close() == self.delivered
        self.round += verdict is Verdict.COMPLETE

    @precondition(lambda self: self.open)
    @rule(device=device)
    def asks_a_server_that_goes_down(self, device: int) -> None:
        going = copy.deepcopy(self.session)
        before = copy.deepcopy(going.seats)
        going.drain()
        for request in (
            lambda: going.exchange(device, self.round, self.attempt, 0, self.now),
            lambda: going.deliver(device, self.round, self.attempt, "late", self.now),
        ):
            with pytest.raises(Refused) as refused:
                request()
            assert refused.value.status == 503 and refused.value.retry
        assert going.seats == before
        going.end()
        assert not going.seats and going.phase is Phase.ENDED

    @precondition(lambda self: self.open)
    @rule(device=device)
    def brings_other_data(self, device: int) -> None:
        seat = self.session.seats[device]
        known = self.session.samples.get(device)
        if known is not None and seat.active:
            with pytest.raises(Refused) as refused:
                self.session.hello(device, 9, self.now)
            assert refused.value.status == 409 and self.session.samples[device] == known

    @invariant()
    def at_most_one_step_of_answers_is_kept(self) -> None:
        for seat in self.session.seats.values():
            assert len({number // self.legs for number in seat.answers}) <= 1
            assert 0 <= seat.next <= seat.exchanges
            assert not (seat.out and seat.answers)


TestInterleaved = Interleaved.TestCase
TestInterleaved.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
