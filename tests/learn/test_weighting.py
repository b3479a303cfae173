"""The expected gradient of a step is central training's, exactly, over every draw of devices and shares."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from math import comb

import numpy as np
import pytest

from sflam.learn.grouping import grouped
from sflam.learn.settings import LearnSettings
from sflam.learn.weighting import Share, counted, weighting_of

SAMPLES = {0: 14, 1: 1978, 2: 100, 3: 3}
LEARN = LearnSettings(method="sfl-v2", weights="samples", local_steps=2, batch=4)


def mean_counts(weighting, counts, update, seed=0):
    """Return device -> what its own mean loss counts in the mean gradient of a step's optimiser steps."""
    groups = grouped(update, counts, seed)
    total, every = Counter(), sum(counts.values())
    for group in groups:
        for device, rows in group.items():
            share = Share(device, len(rows), len(rows), counts[device], every)
            # The mean over the rows in the group is that over all of them, in expectation over the rows.
            total[device] += (weighting.groups or len(groups)) * weighting(share) / len(groups)
    return total


@pytest.mark.parametrize("update", ["sequential", "batched", "mixed"])
@pytest.mark.parametrize("selected", [1, 2, 3, 4])
def test_fixed_local_batches(update, selected):
    """S of K drawn uniformly, mini-batches of unequal sizes: an exact expectation over all draws."""
    weighting = weighting_of(replace(LEARN, server_update=update), "local", SAMPLES, selected / 4, selected)
    expected = Counter()
    for drawn in itertools.combinations(SAMPLES, selected):
        counts = {device: min(LEARN.batch, SAMPLES[device]) for device in drawn}
        for device, count in mean_counts(weighting, counts, update).items():
            expected[device] += count / comb(4, selected)
    for device, count in SAMPLES.items():
        assert expected[device] == pytest.approx(count / sum(SAMPLES.values()), rel=1e-12)


@pytest.mark.parametrize("update", ["batched", "mixed"])
def test_global_sampling(update):
    """Shares as they fall: the mean gradient of every step is that of the mean over its rows."""
    weighting = weighting_of(replace(LEARN, server_update=update), "global", SAMPLES, 1.0, 4)
    counts = {0: 1, 1: 9, 3: 2}
    found = mean_counts(weighting, counts, update)
    assert found == pytest.approx({device: count / 12 for device, count in counts.items()}, rel=1e-12)


@pytest.mark.parametrize("update", ["sequential", "batched", "mixed"])
def test_local_epochs_count_every_row_alike(update):
    """Whatever the mini-batches: the sum over the round gives each row the same weight."""
    learn = replace(LEARN, server_update=update, local_steps=0)
    weighting = weighting_of(learn, "local", SAMPLES, 0.5, 2)
    each = set()
    for counts in ({0: 4, 1: 4}, {0: 2, 1: 4}, {1: 4}, {1: 1}):
        groups = grouped(update, counts, 5)
        for group in groups:
            for device, rows in group.items():
                share = Share(device, len(rows), len(rows), counts[device], sum(counts.values()))
                each.add(round((weighting.groups or len(groups)) * weighting(share) / len(rows), 12))
    assert len(each) == 1
    full = {"sequential": 1 / 4, "batched": 1 / 8, "mixed": 1 / 2}
    assert each == {round(full[update], 12)}, "a step of full mini-batches is the mean of their means"


def test_groups_of_a_size_count_every_row_alike():
    """Local epochs: two groups of a step of two full mini-batches of four, four rows each: their mean."""
    learn = replace(LEARN, server_update="mixed", local_steps=0, server_batch=4)
    weighting = weighting_of(learn, "local", SAMPLES, 0.5, 2)
    each = set()
    for counts in ({0: 4, 1: 4}, {0: 2, 1: 4}, {1: 4}):
        for group in grouped("mixed", counts, 5, 4):
            for device, rows in group.items():
                share = Share(device, len(rows), len(rows), counts[device], sum(counts.values()))
                each.add(round(weighting.groups * weighting(share) / len(rows), 12))
    assert each == {1 / 4}


def test_equal_weights_are_none():
    assert weighting_of(replace(LEARN, weights="equal"), "local", SAMPLES, 1.0, 4) is None


def test_the_average_of_what_devices_trained():
    trained, held = {0: 8, 1: 8}, {0: 14, 1: 1978}
    assert counted(LEARN, "local", trained, held) == [14, 1978]
    assert counted(replace(LEARN, weights="equal"), "local", trained, held) == [8, 8]
    assert counted(replace(LEARN, local_steps=0), "local", trained, held) == [8, 8]
    assert counted(LEARN, "global", trained, held) == [8, 8]
    assert np.isclose(sum(held.values()), 1992)
