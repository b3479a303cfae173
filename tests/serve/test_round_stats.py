"""What the server measures of a round: bodies that come at once share the way they come by."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from sflam.network import trace
from sflam.records.served_round import ServedRound, trace_csv
from sflam.serve.round_stats import RoundStats

RATE = 1e6
"""Bytes a second of the link."""


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def record_of(readings):
    each = [readings[device] for device in sorted(readings)]
    columns = {name: tuple(getattr(one, name) for one in each) for name in ("upload_s", "bytes_up", "link_s")}
    none = (0,) * len(each)
    rest = dict.fromkeys(("finish", "away_s", "bytes_down", "payload_up", "payload_down"), none)
    rest |= dict.fromkeys(("cuts", "bits_up", "bits_down"), none)
    return ServedRound(seconds=1.0, openings=1, server_s=0.0, **columns, **rest)


def test_each_of_n_bodies_has_an_nth_of_the_way(tmp_path):
    """Three devices over one link that is fair: each is measured at the link's own rate, whoever else sends."""
    clock = Clock()
    stats = RoundStats(clock)
    with ExitStack() as first, ExitStack() as second:
        one = first.enter_context(stats.arriving(0))
        clock.now = 1.0  # alone for a second: 1 MB
        two, three = (second.enter_context(stats.arriving(device)) for device in (1, 2))
        clock.now = 4.0  # each a third for three: 1 MB
        stats.received(one, int(2 * RATE))
        first.close()
        clock.now = 6.0  # each a half for two: 1 MB
        stats.received(two, int(2 * RATE))
        stats.received(three, int(2 * RATE))
    found = record_of(stats.readings())
    assert found.upload_s == (4.0, 5.0, 5.0) and found.link_s == pytest.approx((2.0, 2.0, 2.0))
    assert found.link_rates == pytest.approx((8 * RATE,) * 3)
    assert found.contention == pytest.approx((2.0, 2.5, 2.5))
    (tmp_path / "trace.csv").write_text(
        trace_csv([((0, 1, 2), found), ((0,), record_of({0: stats.readings()[0]}))])
    )
    read = trace.read(tmp_path / "trace.csv")
    assert read.values == pytest.approx(8 * RATE) and read.active.tolist() == [
        [True] * 3,
        [True, False, False],
    ]
    assert read.contention[0] == pytest.approx([2.0, 2.5, 2.5]) and read.contention[1].tolist() == [2.0, 0, 0]


def test_a_body_that_is_given_up_shares_the_way_and_counts_for_nothing():
    clock = Clock()
    stats = RoundStats(clock)
    with stats.arriving(0) as whole:
        with pytest.raises(OSError), stats.arriving(1):
            clock.now = 2.0
            raise OSError
        clock.now = 3.0
        stats.received(whole, 10)
    [(device, reading)] = stats.readings().items()
    assert device == 0 and reading.link_s == pytest.approx(2.0) and reading.upload_s == 3.0


def test_a_record_of_before_has_the_rates_that_were_seen():
    none = (0,)
    rest = dict.fromkeys(("finish", "away_s", "bytes_down", "payload_up", "payload_down"), none)
    rest |= dict.fromkeys(("cuts", "bits_up", "bits_down"), none)
    old = ServedRound(seconds=1.0, openings=1, server_s=0.0, upload_s=(2.0,), bytes_up=(1000,), **rest)
    assert old.link_rates == (4000.0,) and old.contention == (1.0,)
