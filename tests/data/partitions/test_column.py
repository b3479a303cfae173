"""``data.partition = "column"``: groups stay whole, are dealt out evenly, and too few of them are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.data.groups import origin_of
from sflam.data.partition import share_out
from sflam.data.settings import DataSettings
from sflam.errors import DataError
from tests.data.samples import assert_partition, labelled

BY_WRITER = DataSettings(partition="column", column="writer", minimum=1)


def written_by(writers: list[object]) -> object:
    labels = np.arange(len(writers), dtype=np.int64) % 3
    return labelled(labels, origin_of(len(writers), len(writers), writers))


@settings(deadline=None, max_examples=200)
@given(writers=st.lists(st.integers(0, 12), min_size=1, max_size=80), seed=st.integers(0, 9), data=st.data())
def test_groups_are_dealt_out_whole(writers: list[int], seed: int, data: st.DataObject) -> None:
    devices = data.draw(st.integers(1, len(set(writers))))
    shared = share_out(BY_WRITER, written_by(writers), devices, seed)
    assert_partition(shared.parts, len(writers), devices, 1)
    owners = {w: {k for k, part in enumerate(shared.parts) if w in np.array(writers)[part]} for w in writers}
    assert all(len(held) == 1 for held in owners.values())
    counts = np.bincount([next(iter(held)) for held in owners.values()], minlength=devices)
    assert counts.max() - counts.min() <= 1


def test_as_many_groups_as_devices_keep_their_order() -> None:
    shared = share_out(BY_WRITER, written_by([10, 9, 10, 2, 9]), 3, seed=5)
    assert [part.tolist() for part in shared.parts] == [[3], [1, 4], [0, 2]]  # writers 2, 9, 10: as numbers
    assert shared.notes == ()
    named = share_out(BY_WRITER, written_by(["b", "a", "b"]), 2, seed=5)
    assert [part.tolist() for part in named.parts] == [[1], [0, 2]]


def test_more_groups_than_devices_are_a_note_and_follow_the_seed() -> None:
    writers = [str(number // 4) for number in range(80)]
    first, again, other = (share_out(BY_WRITER, written_by(writers), 4, seed) for seed in (0, 0, 1))
    assert first.notes == ("the 20 groups of column 'writer' were dealt out whole to 4 devices",)
    same = [np.array_equal(a, b) for a, b in zip(first.parts, again.parts, strict=True)]
    assert all(same)
    assert not all(np.array_equal(a, b) for a, b in zip(first.parts, other.parts, strict=True))


def test_a_deal_by_size_where_a_random_one_leaves_too_few() -> None:
    writers = [0] * 8 + [1] * 8 + list(range(2, 18))  # two large groups and sixteen of one sample
    chosen = DataSettings(partition="column", column="writer", minimum=16)
    shared = share_out(chosen, written_by(writers), 2, seed=0)
    assert [len(part) for part in shared.parts] == [16, 16]


@pytest.mark.parametrize(
    ("writers", "devices", "minimum", "message"),
    [
        (["a", "b"], 3, 1, "has 2 groups in the training part, too few for 3 devices.* at most 2"),
        (["a", None, "b"], 2, 1, "row 1 of few has no value in column 'writer'"),
        (["a", float("nan"), "b"], 2, 1, "row 1 of few has no value"),
        (["a"] * 9 + ["b"], 2, 2, "a device with 1 training samples, fewer than data.minimum .2."),
        ([], 2, 1, "needs a source with columns, and few has none"),
    ],
)
def test_what_cannot_be_dealt(writers: list[object], devices: int, minimum: int, message: str) -> None:
    chosen = DataSettings(partition="column", column="writer", minimum=minimum)
    train = written_by(writers) if writers else labelled(np.zeros(4, np.int64))
    with pytest.raises(DataError, match=message):
        share_out(chosen, train, devices, seed=0)


def test_the_deal_is_of_the_training_part(tmp_path: Path) -> None:
    """Samples that are held out take their writers along; rows keep their numbers."""
    whole = written_by([number // 2 for number in range(20)])
    train = whole.take(np.flatnonzero(np.arange(20) % 2))
    shared = share_out(BY_WRITER, train, 10, seed=0)
    assert [train.origin.rows[part].tolist() for part in shared.parts] == [[2 * n + 1] for n in range(10)]
