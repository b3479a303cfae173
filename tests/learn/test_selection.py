"""Devices drawn by their samples: every chance exact, and what follows from it for weights."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from math import factorial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from sflam.learn.grouping import grouped
from sflam.learn.selection import always_taken, chances, chances_of, select_devices, systematic, under_points
from sflam.learn.settings import FleetSettings, LearnSettings
from sflam.learn.weighting import Share, counted, weighting_of

SAMPLES = {0: 14, 1: 300, 2: 9, 3: 3, 4: 20}
LEARN = LearnSettings(method="sflam-mixed", local_steps=2, batch=4)


def every_draw(samples, selected):
    """Yield (chance, devices) of every draw: all orders of those not always taken, all places of the first point."""
    taken = always_taken(samples, selected)
    rest = [device for device in samples if device not in taken]
    spare, total = selected - len(taken), sum(samples[device] for device in rest)
    if not spare:
        yield Fraction(1), taken
        return
    for order in itertools.permutations(rest):
        for first in range(total):
            yield (
                Fraction(1, total * factorial(len(rest))),
                taken + under_points([*order], samples, spare, first),
            )


@pytest.mark.parametrize("selected", [1, 2, 3, 4, 5])
def test_chances_are_exact(selected):
    expected = Counter()
    for chance, drawn in every_draw(SAMPLES, selected):
        assert len(set(drawn)) == len(drawn) == selected
        for device in drawn:
            expected[device] += chance
    found = chances(SAMPLES, selected)
    assert sum(found.values()) == pytest.approx(selected)
    for device in SAMPLES:
        assert float(expected[device]) == pytest.approx(found[device], rel=1e-12)
    if selected == 1:
        assert found == {device: count / sum(SAMPLES.values()) for device, count in SAMPLES.items()}


@given(
    counts=some.lists(some.integers(0, 50), min_size=1, max_size=12).filter(any),
    selected=some.integers(1, 12),
    seed=some.integers(0, 9),
)
def test_no_device_comes_twice_and_as_many_as_there_are(counts, selected, seed):
    samples = dict(enumerate(counts))
    selected = min(selected, len(counts))
    drawn = systematic(samples, selected, np.random.default_rng(seed))
    assert list(drawn) == sorted(set(drawn)) and all(samples[device] for device in drawn)
    assert len(drawn) == min(selected, sum(map(bool, counts)))
    found = chances(samples, selected)
    assert all(0 <= own <= 1 for own in found.values())
    assert all(device in drawn for device, own in found.items() if own == 1 and samples[device])


@pytest.mark.parametrize("update", ["sequential", "batched", "mixed"])
@pytest.mark.parametrize("selected", [1, 2, 3, 4])
@pytest.mark.parametrize("local_steps", [2, 0])
def test_a_step_is_expected_to_be_central_training_s(update, selected, local_steps):
    """The exact expectation over all draws; without local steps, of the rows of a round."""
    settings = FleetSettings(devices=5, selected=selected, policy="samples")
    learn = replace(LEARN, server_update=update, local_steps=local_steps)
    weighting = weighting_of(learn, "local", SAMPLES, chances_of(settings, SAMPLES), selected)
    expected = Counter()
    for chance, drawn in every_draw(SAMPLES, selected):
        counts = {device: min(4, SAMPLES[device]) for device in sorted(drawn)}
        every = sum(counts.values())
        groups = grouped(update, counts, 1)
        for group in groups:
            for device, rows in group.items():
                times = weighting.groups or len(groups)
                share = Share(device, len(rows), len(rows), counts[device], every)
                value = times * weighting(share) / (len(groups) if local_steps else times)
                # Without local steps a device has so many such steps in a round that every row comes once.
                expected[device] += (
                    float(chance) * value * (1 if local_steps else SAMPLES[device] / counts[device])
                )
    whole = sum(expected.values())
    for device, count in SAMPLES.items():
        assert expected[device] / (1 if local_steps else whole) == pytest.approx(
            count / sum(SAMPLES.values())
        )


def test_who_is_drawn_by_samples_does_not_count_for_them_again():
    even = {0: 10, 1: 20, 2: 30, 3: 20}
    chance = chances(even, 2)
    trained = {1: 8, 2: 8}
    one, two = counted(LEARN, "local", trained, even, chance)
    assert one == pytest.approx(two), "no chance is capped, so all count alike"
    one, two = counted(replace(LEARN, local_steps=0), "local", {1: 20, 2: 30}, even, chance)
    assert one == pytest.approx(two)
    assert counted(replace(LEARN, weights="equal"), "local", trained, even, chance) == [8, 8]


def test_draws_are_those_of_the_seed_and_uniform_ones_are_as_they_were():
    settings = FleetSettings(devices=5, selected=2, policy="samples")
    rounds = [select_devices(settings, 1, number, SAMPLES) for number in range(40)]
    assert rounds == [select_devices(settings, 1, number, SAMPLES) for number in range(40)]
    assert rounds != [select_devices(settings, 2, number, SAMPLES) for number in range(40)]
    assert all(1 in drawn for drawn in rounds) and len(set(rounds)) > 2
    assert chances_of(replace(settings, policy="uniform"), SAMPLES) == 2 / 5


@pytest.mark.parametrize("policy", ["uniform", "samples"])
@pytest.mark.parametrize("known", [1, 4, 5])
def test_no_chance_is_above_one_where_fewer_devices_are_known(policy, known):
    samples = {device: SAMPLES[device] for device in range(known)}
    found = chances_of(FleetSettings(devices=8, selected=5, policy=policy), samples)
    each = found if isinstance(found, dict) else dict.fromkeys(samples, found)
    assert each == dict.fromkeys(samples, 1.0)
