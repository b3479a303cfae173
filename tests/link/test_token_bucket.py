"""Pacing on a clock of its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sflam.link.https_client import Link
from sflam.link.token_bucket import TokenBucket


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds


@given(
    st.floats(1e4, 1e9),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.floats(0, 3)), min_size=1, max_size=30),
)
def test_never_more_than_the_rate_and_one_burst(rate, pieces):
    clock = Clock()
    bucket = TokenBucket(rate, clock=clock, sleep=clock.sleep)
    began, sent = clock.now, 0
    for size, pause in pieces:
        clock.now += pause
        bucket.take(size)
        sent += size
        assert 8 * (sent - bucket.piece) <= rate * (clock.now - began) * (1 + 1e-9) + 1e-3


def test_a_body_takes_as_long_as_its_rate():
    clock = Clock()
    bucket = TokenBucket(8e5, clock=clock, sleep=clock.sleep)
    for _ in range(100):
        bucket.take(10_000)
    assert clock.now - 100.0 == pytest.approx(10.0, abs=0.2)


def test_a_link_sends_whole_bodies_in_pieces_of_its_pace():
    link, body = Link("http://127.0.0.1:1", "token", sleep=lambda seconds: None), bytes(range(256)) * 1000
    link.pace(8e5)
    pieces = list(link._pieces(memoryview(body)))
    assert b"".join(pieces) == body and len(pieces) > 10
    link.pace(None)
    assert b"".join(link._pieces(memoryview(body))) == body
