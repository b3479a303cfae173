"""The rule of buffered rounds, against arithmetic by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sflam.learn.averaging import Averaging
from sflam.learn.settings import LearnSettings
from sflam.learn.staleness import Update, aggregated, weight_of


def state(*values):
    return {"w": torch.tensor(values, dtype=torch.float64)}


def averaging(**learn):
    return Averaging(LearnSettings(sync="buffered", **learn), "local", factors=False)


def test_two_updates_by_hand():
    """w_2 = w_2 + 3/4 (1 - 0) + 1/4 (4 - 2) / sqrt(3): of 30 and 10 rows, fresh and two versions behind."""
    now, old = state(10.0), state(2.0)
    fresh = Update(device=0, staleness=0, rows=30, begun=now, trained=state(11.0))
    stale = Update(device=1, staleness=2, rows=10, begun=old, trained=state(4.0))
    found = aggregated(averaging(), now, [fresh, stale], {0: 30, 1: 10}).state["w"]
    assert float(found) == pytest.approx(10 + 0.75 * 1 + 0.25 * 2 / math.sqrt(3), rel=1e-15)
    assert (weight_of(0), weight_of(3)) == (1.0, 0.5)


def test_a_device_counts_once_for_each_of_its_updates():
    now = state(0.0)
    updates = [
        Update(device=d, staleness=0, rows=1, begun=now, trained=state(value))
        for d, value in ((0, 1), (0, 2), (1, 6))
    ]
    assert float(aggregated(averaging(), now, updates, {0: 7, 1: 9}).state["w"]) == pytest.approx(3.0)


def test_what_nobody_trained_stays_and_what_some_trained_is_theirs():
    now = state(1.0) | {"head": torch.tensor([5.0]), "still": torch.tensor([7.0])}
    one = Update(device=0, staleness=0, rows=1, begun=now, trained=state(3.0))
    two = Update(device=1, staleness=0, rows=1, begun=now, trained=state(5.0) | {"head": torch.tensor([6.0])})
    found = aggregated(averaging(), now, [one, two], {0: 1, 1: 1}).state
    assert [float(found[name]) for name in ("w", "head", "still")] == [4, 6, 7]


def test_the_servers_optimiser_takes_the_weighted_difference():
    now = state(1.0)
    update = Update(device=0, staleness=3, rows=1, begun=state(0.0), trained=state(2.0))
    found = aggregated(
        averaging(server_optimizer="momentum", server_lr=2.0, server_momentum=0.0), now, [update], {0: 1}
    )
    assert float(found.state["w"]) == pytest.approx(1 + 2 * 0.5 * 2)


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(1, 50), st.floats(-9, 9), st.floats(-9, 9)),
        min_size=1,
        max_size=6,
    ),
    st.floats(-9, 9),
)
def test_it_is_the_sum_over_updates(drawn, current):
    updates = [
        Update(device=index, staleness=tau, rows=rows, begun=state(begun), trained=state(end))
        if tau
        else Update(device=index, staleness=0, rows=rows, begun=state(current), trained=state(end))
        for index, (tau, rows, begun, end) in enumerate(drawn)
    ]
    found = aggregated(averaging(), state(current), updates, {i: 1 for i in range(len(updates))})
    every = sum(rows for _, rows, _, _ in drawn)
    moved = sum(
        rows / every * (end - (begun if tau else current)) / math.sqrt(1 + tau)
        for tau, rows, begun, end in drawn
    )
    assert float(found.state["w"]) == pytest.approx(current + moved, abs=1e-12)
