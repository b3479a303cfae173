"""No optimiser leaves the reach of its steps, whatever its gradients; what is beyond it, or the others, is found."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.learn.adapter_exchange import AdapterCodec
from sflam.learn.optimizers import optimizer
from sflam.learn.screening import Reach, Screen, Trained, adam_step, reach_of
from sflam.learn.settings import LearnSettings
from sflam.learn.settings.schedule import Moment

BOUNDLESS = Reach(math.inf, math.inf, 0.0, 1.0)
FAR = 1e9


def moments(steps, round=0):
    return [Moment(round, step, steps) for step in range(steps)]


def moved(learn, gradients, start, before=0):
    """Return start and end of a device that follows the gradients; of the first ``before`` only moments are kept."""
    row = torch.nn.Parameter(start.clone())
    made = optimizer(learn, [row])
    begin = start
    for step, gradient in enumerate(gradients):
        if step == before:
            begin = row.detach().clone()
        size = float(gradient.norm())
        row.grad = gradient * min(1.0, learn.clip / (size + 1e-6)) if learn.clip else gradient.clone()
        made.step()
    return Trained({"w": begin}, {"w": row.detach().clone()})


# From quiet to loud, in any order: moments that are as unlike as they can be.
@given(
    st.lists(st.lists(st.sampled_from([-1e6, -1.0, -1e-6, 0.0, 1e-4, 1.0, 1e6]), min_size=3, max_size=3), max_size=25),
    st.sampled_from(["adamw", "adam", "sgd"]), st.sampled_from(["reset", "keep"]), st.sampled_from([0.0, 0.3]),
    st.data(),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_no_gradients_lead_beyond_the_reach(gradients, kind, state, decay, data):
    learn = LearnSettings(optimizer=kind, state=state, weight_decay=decay, momentum=0.9, clip=1.0, lr=0.01)
    before = data.draw(st.integers(0, len(gradients))) if state == "keep" else 0
    trained = moved(learn, [torch.tensor(g) for g in gradients], torch.tensor([1.0, -2.0, 0.0]), before)
    if before == len(gradients):
        return
    reach = reach_of(learn, moments(len(gradients) - before))
    assert trained.impossible(reach) == ""


def growing(steps):
    """Return the gradients that Cauchy and Schwarz call the worst, each (b2 / b1) times the one before."""
    return [torch.tensor([(0.999 / 0.9) ** step * 1e-3]) for step in range(steps)]


def test_the_reach_is_reached():
    learn = LearnSettings(optimizer="adam", lr=0.01, clip=0.0)
    for steps in (1, 5, 40):
        trained = moved(learn, growing(steps), torch.zeros(1, dtype=torch.float64).float())
        end = abs(float(trained.end["w"]))
        assert 0.85 <= end / reach_of(learn, moments(steps)).each <= 1.0001
    assert adam_step(1) == pytest.approx(1.0) and 7.2 < adam_step(10**5) < 7.3


def test_beyond_it_is_named():
    learn = LearnSettings(optimizer="adamw", lr=0.01)
    start = {"w": torch.zeros(4)}
    reach = reach_of(learn, moments(3))
    assert Trained(start, {"w": torch.full((4,), 0.99 * reach.each)}).impossible(reach) == ""
    assert "w moved by up to" in Trained(
        start, {"w": torch.tensor([0.0, 0, 0, 1.01 * reach.each])}
    ).impossible(reach)
    assert "NaN" in Trained(start, {"w": torch.tensor([0.0, math.nan])}).impossible(BOUNDLESS)
    assert Trained(start, {"w": torch.full((4,), 3e38)}).impossible(reach)  # and no overflow on the way
    none = reach_of(learn, [])
    assert Trained(start, start).impossible(none) == ""
    assert Trained(start, {"w": torch.full((4,), 1e-3)}).impossible(none), "who makes no step moves nothing"


def devices(sizes, steps=None):
    start = {"w": torch.zeros(50)}
    trained = {
        d: (Trained(start, {"w": torch.full((50,), size)}), Trained({}, {})) for d, size in enumerate(sizes)
    }
    return trained, {d: Reach(FAR, math.inf, 0.0, (steps or {}).get(d, 1.0)) for d in trained}


def test_far_beyond_the_others_is_shortened_to_the_limit_or_refused():
    found = Screen("clip", 4.0)(*devices([1.0, 1.2, 0.8, -100.0]))
    assert found.refused == {} and found.clipped == {3: pytest.approx(100 / 4.4)}
    assert found.sides[3][0]["w"].tolist() == pytest.approx([-4.4] * 50)
    found = Screen("reject", 4.0)(*devices([1.0, 1.2, 0.8, -100.0]))
    assert list(found.refused) == [3] and sorted(found.sides) == [0, 1, 2] and not found.clipped
    found = Screen("off")(*devices([1.0, 1.2, 0.8, math.inf]))
    assert sorted(found.sides) == [0, 1, 2, 3]


def test_without_any_bound_of_a_step_devices_may_differ_twice_as_much():
    trained, reach = devices([1.0, 1.0, 1.0, 3.9, 4.1])
    assert Screen()(trained, reach).clipped.keys() == {3, 4}
    loose = dict.fromkeys(reach, BOUNDLESS)
    assert Screen()(trained, loose).clipped.keys() == {4}
    clip = LearnSettings(optimizer="sgd", clip=1.0)
    assert reach_of(clip, moments(1)).bounded and not reach_of(replace(clip, clip=0.0), moments(1)).bounded


def test_more_steps_may_go_further_and_fewer_not_less():
    found = Screen("reject", 2.0)(*devices([1.0, 1.0, 1.0, 7.9, 1.9], {3: 4.0, 4: 0.1}))
    assert not found.refused
    assert list(Screen("reject", 2.0)(*devices([1.0, 1.0, 1.0, 8.1], {3: 4.0})).refused) == [3]


def test_what_is_left_alone_is_the_very_tensor():
    trained, reach = devices([1.0, 1.1, 0.9])
    found = Screen()(trained, reach)
    assert all(found.sides[d][0]["w"] is trained[d][0].end["w"] for d in trained)
    assert not Screen()(*devices([1.0, 500.0])).clipped, "two devices have no median"


def test_devices_with_other_tensors_are_compared_in_what_they_share():
    """A head moves ten times as far as adapters that begin at zero: who has the head alone is no outlier for it."""
    start = {"head": torch.zeros(4), "adapter": torch.zeros(400)}

    def one(names, times=1.0):
        size = {"head": 1.0, "adapter": 0.1}
        end = {name: torch.full_like(start[name], times * size[name]) for name in names}
        return (Trained({name: start[name] for name in names}, end),)

    reach = dict.fromkeys(range(4), Reach(FAR, math.inf, 0.0, 1.0))
    trained = {0: one(["head"]), 1: one(start), 2: one(start), 3: one(start)}
    assert not Screen("reject")(trained, reach).refused
    trained[0] = one(["head"], 2.1)
    assert list(Screen("reject")(trained, reach).refused) == [0]
    trained[0] = (Trained({"own": torch.zeros(2)}, {"own": torch.ones(2)}),)
    assert not Screen("reject")(trained, reach).refused, "what nobody else trains has no median"


def arrived(codec, start, end):
    """Return what a device trained as a server receives it."""
    names, own = ["w"], {"w": start}
    found, _ = codec.up(1, 0, 9, end, start, codec.side(own, names))
    return Trained(own, {"w": found}, codec.rounding(own, names))


@pytest.mark.parametrize("common", [False, True])
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
@given(bits=st.integers(1, 16), seed=st.integers(0, 99), decay=st.sampled_from([0.0, 0.3]))
@settings(max_examples=60, deadline=None)
def test_rounding_takes_no_honest_device_beyond_its_reach(kind, common, bits, seed, decay):
    """Of devices that went as far as their steps let them, in some groups, and hardly moved in others."""
    learn = LearnSettings(optimizer=kind, weight_decay=decay, clip=1.0, lr=0.01, momentum=0.5)
    reach, draw = reach_of(learn, moments(3)), torch.Generator().manual_seed(seed)
    start = torch.randn(300, generator=draw)
    ways = torch.randint(-1, 2, (300,), generator=draw).float()
    ways[100:] *= 10 ** -torch.randint(0, 6, (200,), generator=draw).float()
    allowed = reach.each + reach.decay * (start.abs() + reach.each)
    if kind == "sgd":
        size = float(start.norm())
        allowed = (reach.norm + reach.decay * (size + reach.norm)) / max(float(ways.norm()), 1e-9)
    end = start + ways * allowed
    codec = AdapterCodec(bits, seed, common=common)
    if common:
        codec.reach = {"w": float((end - start).abs().max()) * 2}
    assert arrived(codec, start, end).impossible(reach) == ""


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("common", [False, True])
def test_a_grid_of_its_own_choice_lets_no_device_farther(bits, common):
    learn = LearnSettings(optimizer="adamw", weight_decay=0.0, lr=0.01)
    reach, start = reach_of(learn, moments(3)), torch.zeros(300)
    codec = AdapterCodec(bits, 1, common=common)
    codec.reach = {"w": 2 * reach.each}
    own = {"w": start}
    for times, fits in ((1.0, True), (2.0, False), (100.0, False)):
        lie = Trained(own, {"w": start + times * reach.each}, codec.rounding(own, ["w"]))
        assert (lie.impossible(reach) == "") is fits, times
