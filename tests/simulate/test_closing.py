"""When a round is over that some leave before its end, and what each spent until then, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sflam.simulate.clock import RoundCost
from sflam.simulate.closing import closing, steps_share, until

NEVER = np.inf


def cost_of(**changes):
    """Return the cost of two devices: 1 s of fetching, 8 s of steps, 1 s of handing on; and 2, 4 and 0 s."""
    plain = {
        "compute_s": np.array([4.0, 2.0]),
        "up_s": np.array([2.0, 1.0]),
        "server_s": np.array([1.0, 0.5]),
        "down_s": np.array([1.0, 0.5]),
        "adapters": np.array([2.0, 2.0]),
        "compute_j": np.array([40.0, 20.0]),
        "transmit_j": np.array([8.0, 4.0]),
        "adapter_j": np.array([3.0, 0.0]),
        "server_j": 10.0,
        "counted": np.array([51.0, 24.0]) + 20.0,
        "receive_j": np.array([9.0, 6.0]),
        "idle_j": np.array([20.0, 20.0]),
        "inside": True,
        "fetch_s": np.array([1.0, 2.0]),
        "fetch_j": np.array([1.0, 2.0]),
    }
    return RoundCost(**{**plain, **changes})


def test_without_a_quorum_it_waits_for_all_that_are_at_work():
    close = closing(np.array([3.0, 9.0, 5.0]), np.array([NEVER, 7.0, NEVER]))
    assert close.seconds == 7 and close.delivered.tolist() == [True, False, True]
    assert close.failed.tolist() == [False, True, False] and not close.late.any()
    assert close.stops.tolist() == [3, 7, 5]


def test_it_closes_a_grace_after_its_quorum():
    ends, gone = np.array([3.0, 9.0, 5.0, 6.0]), np.array([NEVER, NEVER, 1.0, NEVER])
    close = closing(ends, gone, quorum=2, grace=1.5)
    assert close.seconds == 7.5 and close.stops.tolist() == [3, 7.5, 1, 6]
    assert close.delivered.tolist() == [True, False, False, True]
    assert close.failed.tolist() == [False, False, True, False] and close.late.tolist() == [
        False,
        True,
        False,
        False,
    ]
    assert closing(ends, gone, quorum=2, grace=9.0).seconds == 9  # no longer than the last is at work
    assert closing(ends, gone, quorum=4, grace=0.0).delivered.sum() == 3  # of which there are too few


def test_what_was_spent_by_hand():
    cost = cost_of()
    stops = np.array([5.0, 1.0])  # half of its steps; half of its fetching
    assert steps_share(cost, stops).tolist() == [0.5, 0.0]
    spent = until(cost, stops, np.array([2.0, 2.0]), np.array([5.0, 6.0]), 6.0)
    assert spent.compute_j.tolist() == [20, 0] and spent.transmit_j.tolist() == [4, 0]
    assert spent.adapter_j.tolist() == [0, 0] and spent.receive_j.tolist() == [1 + 4, 1]
    assert spent.idle_j.tolist() == [10, 12] and spent.server_j == 2.5
    assert spent.adapters.tolist() == [1, 1] and spent.finish.tolist() == [4, 0]
    assert spent.seconds == spent.whole_s == 6
    assert spent.device_j.tolist() == [20 + 4 + 5 + 10, 1 + 12]


@given(
    st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.0, 200)), min_size=1, max_size=5),
    st.integers(0, 9),
    st.floats(0, 50),
)
def test_every_device_delivers_fails_or_is_late(times, quorum, grace):
    ends, gone = (np.array(column) for column in zip(*times, strict=True))
    close = closing(ends, gone, quorum, grace)
    assert (close.delivered.astype(int) + close.failed + close.late == 1).all()
    assert (close.stops <= close.seconds * (1 + 1e-9)).all()
    assert (close.stops[close.late] == close.seconds).all()
    patient = closing(ends, gone)
    assert close.seconds <= patient.seconds and (close.delivered <= patient.delivered).all()
    if 0 < quorum <= patient.delivered.sum():
        assert close.delivered.sum() >= quorum


@given(st.floats(0, 12), st.floats(0, 12))
def test_more_time_spends_more_and_all_of_it_spends_all(first, second):
    cost, still = cost_of(), np.zeros(2)
    low, high = (until(cost, np.full(2, at), still, still, 12.0).device_j for at in sorted((first, second)))
    assert (low <= high + 1e-12).all()
    whole = until(cost, np.array([10.0, 6.0]), np.array([2.0, 2.0]), np.full(2, 10.0), 10.0)
    assert whole.device_j == pytest.approx(cost.device_j, rel=1e-12)
    assert whole.counted == pytest.approx(cost.counted, rel=1e-12) and whole.server_j == cost.server_j
