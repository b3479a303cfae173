"""The plan of a served round: the optimum, by trying every choice; phases that add up; and claims that cannot be."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.allocate.settings import PlanSettings
from sflam.codec.settings import QuantSettings
from sflam.config import Job
from sflam.cost.convergence import quantization_noise
from sflam.errors import AllocationError
from sflam.model.settings import ModelSettings
from sflam.network.settings import NetworkSettings
from sflam.planner.cell import workload_of
from sflam.planner.served import SPARE, MeasuredRound, Rates, plan_served, too_late

BOTH = ("bits", "bits_down")
WORK = workload_of(Job(model=ModelSettings(cut=1)))


def served(rates, access="fdma", optimize=BOTH, **wish):
    plan = PlanSettings(optimize=optimize, **{"sensitivity": 3.0, "sensitivity_down": 1.0} | wish)
    job = Job(
        model=ModelSettings(cut=1),
        plan=plan,
        network=NetworkSettings(access=access),
        quant=QuantSettings(bits_up=8),
    )
    count = len(rates)
    return MeasuredRound(
        job=job, workload=WORK, own=(), cuts=np.full(count, 1), rows=np.full(count, 32.0),
        exchanges=np.full(count, 2.0), rates=tuple(rates),
        bits_up=np.full(count, 8), bits_down=np.full(count, 8),
    )  # fmt: skip


PROBLEM = served([Rates(up=1e6)]).problem()


def chain(one, up, down):
    """Return the s of a device's chain, term by term."""
    problem, rate = PROBLEM.change(bits=up, bits_down=down), one.rates[0]
    seconds = rate.compute_s * 32 + 2 * (rate.wait_s + rate.exchange_s)
    return seconds + problem.payload[0] / np.log(2) / rate.up + problem.down_bits[0] / rate.down


rates = st.builds(
    Rates,
    up=st.floats(1e5, 1e8),
    down=st.floats(1e5, 1e8),
    compute_s=st.floats(0, 0.1),
    exchange_s=st.floats(0, 0.1),
    wait_s=st.floats(0, 0.1),
)


@settings(deadline=None, max_examples=25)
@given(st.lists(rates, min_size=2, max_size=2))
def test_ways_of_their_own_get_the_best_of_all_choices(pair):
    widths = range(2, 6)
    found = plan_served(served(pair, bits_most=5))
    alone = [served([rate]) for rate in pair]
    each = [{(up, down): chain(one, up, down) for up in widths for down in widths} for one in alone]

    def total(choice):
        noise = sum(3 * quantization_noise(up) + quantization_noise(down) for up, down in choice)
        return (1 + noise) * max(own[pair] for own, pair in zip(each, choice, strict=True))

    best = min(map(total, itertools.product(each[0], each[1])))
    chosen = list(zip(found.bits_up.tolist(), found.bits_down.tolist(), strict=True))
    assert best * (1 - 1e-9) <= total(chosen) <= best * (1 + SPARE)
    assert found.rounds * found.seconds == pytest.approx(total(chosen), rel=1e-9)
    assert found.gap == pytest.approx(total(chosen) / best - 1, abs=1e-9)


def test_bits_that_are_worth_nothing_are_spared():
    found = plan_served(
        served([Rates(up=1e5), Rates(up=1e9, down=1e9)], sensitivity=0.1, sensitivity_down=0.0)
    )
    assert found.bits_up[1] < 10 and found.bits_down.tolist() == [2, 2]


def test_devices_that_share_a_way_are_done_together_and_take_all_of_its_time():
    one = served(
        [Rates(up=8e6, compute_s=0.01), Rates(up=8e6), Rates(up=2e6)], access="airtime", optimize=("bits",)
    )
    found = plan_served(one)
    assert found.gap is not None and found.gap < 1e-3
    assert (found.rate / one.column("up")).sum() == pytest.approx(1, rel=1e-6)
    assert found.finish == pytest.approx(found.seconds, rel=1e-6)
    assert set(found.bits_down.tolist()) == {one.job.quant.bits_down}


def test_bits_down_of_a_shared_way_are_chosen_too():
    slow = Rates(up=1e8, down=5e5)
    found = plan_served(served([slow, Rates(up=1e8, down=1e8)], access="airtime"))
    assert found.bits_down[0] < found.bits_down[1]


def test_a_plan_keeps_the_bits_that_it_is_not_to_choose():
    found = plan_served(served([Rates(up=1e5), Rates(up=1e8)], optimize=("clock",)))
    assert found.bits_up.tolist() == [8, 8]


def test_who_cannot_keep_the_deadline():
    late = served([Rates(up=1e3), Rates(up=1e8)], deadline=10.0)
    assert too_late(late) == (0,)
    with pytest.raises(AllocationError, match=r"plan\.deadline = 10.*drop"):
        plan_served(late)
    found = plan_served(served([Rates(up=1e6), Rates(up=1e8)], deadline=10.0, sensitivity=1e6))
    assert found.seconds <= 10.0


@pytest.mark.parametrize("access", ["fdma", "airtime"])
@pytest.mark.parametrize(
    "wild",
    [
        {"up": 0.0}, {"up": float("inf")}, {"up": float("nan")}, {"down": 0.0}, {"compute_s": float("inf")},
        {"compute_s": float("nan")}, {"wait_s": 1e300}, {"exchange_s": -5.0},
    ],
)  # fmt: skip
def test_whatever_was_claimed_there_is_a_plan(wild, access):
    found = plan_served(served([replace(Rates(up=1e6), **wild), Rates(up=1e7)], access=access))
    assert np.isfinite(found.finish).all() and (found.finish >= 0).all()
