"""Averages that few devices cannot move: by hand, against plain loops, and in a run with a device that sends noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sflam import config
from sflam.errors import ConfigError
from sflam.learn.aggregate import fedavg
from sflam.learn.averaging import Averaging
from sflam.learn.robust import geometric_weights, nearest, robust
from sflam.run import start as jobs

EVEN = [0.2] * 5


def states(*rows):
    """Return states of one tensor of two numbers and one of one."""
    return [{"a": torch.tensor(row[:2], dtype=torch.float64), "b": torch.tensor(row[2:])} for row in rows]


FIVE = states([1.0, 10.0, 0.0], [2.0, 20.0, 1.0], [3.0, 30.0, 2.0], [4.0, 40.0, 3.0], [1000.0, -9000.0, 5e4])


def test_the_median_of_every_number():
    found = robust("median", 0.2, FIVE, EVEN)
    assert found["a"].tolist() == [3.0, 20.0] and found["b"].tolist() == [2.0]
    even = robust("median", 0.2, FIVE[:4], [0.25] * 4)
    assert even["a"].tolist() == [2.5, 25.0]
    assert found["b"].dtype == FIVE[0]["b"].dtype


def test_the_trimmed_mean_leaves_the_largest_and_the_smallest_out():
    found = robust("trimmed", 0.2, FIVE, EVEN)
    assert found["a"].tolist() == [3.0, 20.0]
    assert robust("trimmed", 0.4, FIVE, EVEN)["a"].tolist() == [3.0, 20.0]
    plain = robust("trimmed", 0.0, FIVE, EVEN)
    assert plain["a"].tolist() == pytest.approx(fedavg(FIVE, EVEN)["a"].tolist())


def test_krum_keeps_those_that_are_near_others():
    assert nearest(FIVE, 1) == [0, 1, 2, 3]
    weights = [0.1, 0.2, 0.3, 0.2, 0.2]
    found = robust("krum", 0.2, FIVE, weights)
    assert found["a"].tolist() == pytest.approx((np.array([1, 4, 9, 8]).sum() / 8, 27.5))
    assert nearest(FIVE[:2], 1) == [0, 1]  # too few to tell


def test_the_geometric_median_is_hardly_moved_by_one_far_away():
    """Against a plain minimisation of the sum of distances."""
    from scipy.optimize import minimize

    weights = [0.3, 0.1, 0.2, 0.25, 0.15]
    found = robust("geometric", 0.0, FIVE, weights)
    point = np.concatenate([found["a"].numpy(), found["b"].numpy()])
    rows = np.array([[*s["a"].tolist(), *s["b"].tolist()] for s in FIVE])

    def total(at):
        return float(np.array(weights) @ np.linalg.norm(rows - at, axis=1))

    best = minimize(
        total, point + 1, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 5000}
    )
    assert total(point) <= best.fun * (1 + 1e-9)
    assert np.abs(point[:2]).max() < 50
    assert sum(geometric_weights(FIVE, weights)) == pytest.approx(1)


@given(
    st.sampled_from(["median", "trimmed", "geometric", "krum"]),
    st.integers(1, 9),
    st.integers(0, 10**6),
)
def test_alike_states_are_their_own_average_and_the_order_does_not_matter(kind, count, seed):
    draw = np.random.default_rng(seed)
    some = states(*draw.normal(size=(count, 3)).tolist())
    weights = draw.dirichlet(np.ones(count)).tolist()
    order = draw.permutation(count)
    one = robust(kind, 0.25, some, weights)
    other = robust(kind, 0.25, [some[k] for k in order], [weights[k] for k in order])
    for name in one:
        assert torch.allclose(one[name], other[name], rtol=1e-5, atol=1e-7)
    alike = robust(kind, 0.25, [some[0]] * count, weights)
    assert all(torch.allclose(alike[name], some[0][name]) for name in alike)


@pytest.mark.parametrize("kind", ["median", "trimmed", "geometric", "krum"])
@given(seed=st.integers(0, 10**6), size=st.floats(1, 1e9))
def test_what_few_devices_send_moves_it_no_further_than_the_honest_lie(kind, seed, size):
    """Every number of median and trimmed mean lies among the honest; the others stay near, however far the rest is."""
    draw = np.random.default_rng(seed)
    honest = draw.normal(size=(8, 3))
    sent = [*honest.tolist(), *(size * draw.choice([-1, 1], (2, 3))).tolist()]
    found = robust(kind, 0.2, states(*sent), [0.1] * 10)
    point = np.concatenate([found["a"].numpy(), found["b"].numpy()])
    if kind in ("median", "trimmed"):
        assert (honest.min(axis=0) - 1e-6 <= point).all() and (point <= honest.max(axis=0) + 1e-6).all()
    else:
        spread = np.linalg.norm(honest - honest.mean(axis=0), axis=1).max()
        assert np.linalg.norm(point - honest.mean(axis=0)) <= 4 * spread


@pytest.mark.parametrize("kind", ["median", "trimmed", "geometric", "krum"])
@pytest.mark.parametrize("method", ["sflam", "sfl-v2", "fedlora"])
def test_a_round_averages_so(small, tmp_path, monkeypatch, kind, method):
    """By the states that the devices of the round trained, whatever the method."""
    keys = (
        f"learn.robust={kind}",
        f"learn.method={method}",
        "learn.rounds=1",
        "fleet.devices=5",
        "data.minimum=4",
    )
    run = jobs.start(config.load(None, [*small, *keys]), tmp_path / "run")
    seen, call = {}, Averaging.__call__

    def noted(averaging, start, states, trained, *others, **named):
        seen.update(
            states={d: {n: t.clone() for n, t in s.items()} for d, s in states.items()}, trained=trained
        )
        return call(averaging, start, states, trained, *others, **named)

    monkeypatch.setattr(Averaging, "__call__", noted)
    (record,) = run.rounds()
    rows = [seen["trained"][device] for device in seen["states"]]
    assert sum(rows) == record.samples
    wanted = robust(kind, 0.2, list(seen["states"].values()), [n / sum(rows) for n in rows])
    assert wanted.keys() <= run.state.keys()
    assert all(torch.equal(run.state[name], wanted[name]) for name in wanted)


def test_a_share_of_half_or_more_is_refused():
    with pytest.raises(ConfigError, match=r"robust_share is 0.5; it must be in \[0, 0.5\): fewer than half"):
        config.load(None, ["learn.robust=trimmed", "learn.robust_share=0.5"])
