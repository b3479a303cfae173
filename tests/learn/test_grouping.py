"""The groups of a step, and what one trunk does with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sflam.learn.device import Devices
from sflam.learn.frames import Frame
from sflam.learn.grouping import grouped
from sflam.learn.server import Trunk
from sflam.learn.weighting import ByDevice
from sflam.model.split import split
from tests.learn.builders import LEARN, adapted, parts_of
from tests.tiny import largest_difference

COUNTS = st.dictionaries(st.integers(0, 40), st.integers(1, 17), min_size=1, max_size=12)


@given(COUNTS, st.sampled_from(["sequential", "batched", "mixed"]), st.integers(0, 2**40))
def test_every_row_is_in_one_group(counts, update, seed):
    groups = grouped(update, counts, seed)
    for device, count in counts.items():
        rows = np.concatenate([group[device] for group in groups if device in group])
        assert sorted(rows) == list(range(count))
    assert all(groups), "no group is empty"
    assert len(groups) == {"sequential": len(counts), "batched": 1, "mixed": max(counts.values())}[update]


@given(COUNTS, st.integers(0, 2**40))
def test_mixed_groups_spread_rows_evenly(counts, seed):
    groups = grouped("mixed", counts, seed)
    for device, count in counts.items():
        places = [index for index, group in enumerate(groups) if device in group]
        assert len(places) == count, "one row in a group at most"
        gaps = np.diff(places)
        assert not len(gaps) or set(gaps) <= {len(groups) // count, -(-len(groups) // count)}
    assert [{d: rows.tolist() for d, rows in group.items()} for group in groups] == [
        {d: rows.tolist() for d, rows in group.items()} for group in grouped("mixed", counts, seed)
    ]


@given(COUNTS, st.integers(0, 2**40), st.integers(1, 40))
def test_groups_of_a_size_take_every_row_once_and_of_each_device_alike(counts, seed, rows):
    groups = grouped("mixed", counts, seed, rows)
    wanted = max(1, round(sum(counts.values()) / rows))
    assert len(groups) <= wanted and all(groups)
    for device, count in counts.items():
        own = [group[device] for group in groups if device in group]
        assert sorted(np.concatenate(own)) == list(range(count))
        assert max(map(len, own)) <= -(-count // wanted) + (count > wanted), "spread evenly"


def test_one_group_of_all_rows_is_batched_and_groups_of_one_take_them_one_by_one():
    counts = {3: 4, 1: 1}
    assert [g.keys() for g in grouped("mixed", counts, 0, 5)] == [counts.keys()]
    assert all(sum(map(len, g.values())) <= 2 for g in grouped("mixed", counts, 0, 1))


def test_where_a_device_with_few_rows_stands_is_drawn():
    places = {
        next(i for i, group in enumerate(grouped("mixed", {0: 8, 1: 1}, seed)) if 1 in group)
        for seed in range(200)
    }
    assert places == set(range(8))


def frames_of(kind, sizes, cut=1):
    backbone, model, examples = adapted(kind)
    cuts = [cut] * len(sizes)
    devices = Devices(split(backbone, model, cuts)[0], cuts, LEARN)
    batches = {k: examples.take(part) for k, part in enumerate(parts_of(sizes))}
    hidden = devices.forward(batches, dict.fromkeys(batches, 0))
    frames = [Frame(k, cut, hidden[k], batch.lengths, batch.labels) for k, batch in batches.items()]

    def trunk(update, **options):
        learn = replace(LEARN, method="sfl-v2", server_update=update, **options)
        return Trunk(split(backbone, model, cuts, shared=True)[1], backbone.task, learn, shared=True)

    return frames, trunk


def assert_same(first, second, answers):
    for one, other in zip(*answers, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-12)
        assert largest_difference(one.gradient, other.gradient) < 1e-9
    assert largest_difference(first.segment.stack.values, second.segment.stack.values) < 1e-9


@pytest.mark.parametrize("kind", ["vit", "bert", "gpt2-lm"])
def test_one_row_each_is_batched(kind):
    """G = 1: the one mixed group has all rows."""
    frames, trunk = frames_of(kind, [1, 1, 1])
    mixed, batched = trunk("mixed"), trunk("batched")
    assert_same(mixed, batched, (mixed.step(frames, 0), batched.step(frames, 0)))


@pytest.mark.parametrize("kind", ["vit", "bert", "gpt2-lm"])
def test_a_mixed_step_is_its_groups_by_hand(kind):
    """Each group is one batched step on the rows in it; answers are put together row by row."""
    frames, trunk = frames_of(kind, [4, 1, 2])
    mixed, by_hand = trunk("mixed"), trunk("batched")
    answers = mixed.step(frames, 7)
    groups = grouped("mixed", {0: 4, 1: 1, 2: 2}, 7)
    assert len(groups) == 4
    found = {frame.device: frame.hidden.new_zeros(frame.hidden.shape) for frame in frames}
    for group in groups:
        members = [frame.rows(group[frame.device]) for frame in frames if frame.device in group]
        for answer, member in zip(by_hand.step(members, 0), members, strict=True):
            frame = frames[answer.device]
            (row,) = group[answer.device]
            share = member.targets(mixed.task) / frame.targets(mixed.task)
            found[answer.device][row, : answer.gradient.shape[1]] = answer.gradient[0] * share
    assert largest_difference(mixed.segment.stack.values, by_hand.segment.stack.values) < 1e-9
    for answer in answers:
        assert largest_difference(answer.gradient, found[answer.device]) < 1e-9


def test_weights_leave_the_gradient_of_a_device_alone():
    frames, trunk = frames_of("bert", [3, 2, 4])
    plain, weighted = trunk("batched"), trunk("batched")
    weighted.weighting = ByDevice({0: 0.7, 1: 1e-3, 2: 0.2})
    first, second = plain.step(frames, 0), weighted.step(frames, 0)
    for one, other in zip(first, second, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-12)
        assert largest_difference(one.gradient, other.gradient) < 1e-9
    assert largest_difference(plain.segment.stack.values, weighted.segment.stack.values) > 1e-6


def test_a_group_with_one_device_keeps_its_share():
    """SGD without clipping: the trunk's move is -lr G v_k grad F_k where device k alone is in the group."""
    frames, trunk = frames_of("vit", [3])
    options = {"optimizer": "sgd", "lr": 0.1, "clip": 0.0, "weight_decay": 0.0}
    plain, weighted = trunk("batched", **options), trunk("batched", **options)
    weighted.weighting = ByDevice({0: 0.25})
    start = plain.segment.stack.values.clone()
    plain.step(frames, 0)
    weighted.step(frames, 0)
    moved, less = plain.segment.stack.values - start, weighted.segment.stack.values - start
    assert largest_difference(less, moved * 0.25) < 1e-9
