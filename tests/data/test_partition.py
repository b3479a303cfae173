"""Partitions: every sample on exactly one device, minimum honoured, skew as asked, reproducible."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.data import settings as data_settings
from sflam.data.partition import PARTITIONS, share_out
from sflam.data.partitions.dirichlet import dirichlet
from sflam.data.partitions.iid import iid
from sflam.data.partitions.lengths import length_groups
from sflam.data.partitions.shards import shards
from sflam.data.settings import DataSettings
from sflam.data.sources import digits
from sflam.errors import DataError
from tests.data.samples import Labels, assert_partition, labelled, texts_of


def partition(chosen: DataSettings, labels: Labels, devices: int, seed: int) -> list[Labels]:
    """Return the parts of images with some labels."""
    return list(share_out(chosen, labelled(labels), devices, seed).parts)


def class_counts(labels: np.ndarray, parts: list[np.ndarray]) -> np.ndarray:
    """Return how many samples of each class each device holds, [K, classes]."""
    return np.stack([np.bincount(labels[part], minlength=int(labels.max()) + 1) for part in parts])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Labels, int, int]:
    """Labels, devices and a minimum that together are possible, up to one device per sample."""
    samples = draw(st.integers(1, 120))
    classes = draw(st.integers(1, 12))
    labels = np.random.default_rng(draw(st.integers(0, 2**32))).integers(0, classes, samples)
    devices = draw(st.integers(1, samples))
    return labels, devices, draw(st.integers(1, samples // devices))


@settings(deadline=None, max_examples=200)
@given(case=cases(), alpha=st.floats(0.01, 100.0), seed=st.integers(0, 2**32))
def test_dirichlet_is_a_partition(case: tuple[Labels, int, int], alpha: float, seed: int) -> None:
    labels, devices, minimum = case
    parts = dirichlet(labels, devices, alpha, np.random.default_rng(seed), minimum)
    assert_partition(parts, len(labels), devices, minimum)


@settings(deadline=None)
@given(case=cases(), seed=st.integers(0, 2**32))
def test_iid_is_a_partition_of_equal_parts(case: tuple[Labels, int, int], seed: int) -> None:
    labels, devices, minimum = case
    parts = iid(labels, devices, np.random.default_rng(seed), minimum)
    assert_partition(parts, len(labels), devices, minimum)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("alpha", [1e-300, 0.01, 1e6])
@pytest.mark.parametrize(("devices", "minimum"), [(1797, 1), (898, 2), (100, 17), (1, 1797)])
def test_extremes_on_the_digits(alpha: float, devices: int, minimum: int) -> None:
    labels = digits().labels
    chosen = DataSettings(alpha=alpha, minimum=minimum)
    assert_partition(partition(chosen, labels, devices, seed=0), len(labels), devices, minimum)


def skew(labels: Labels, parts: list[Labels]) -> float:
    """Return the mean total variation distance between a device's class mix and the whole's, by size."""
    counts = class_counts(labels, parts)
    mixes = counts / counts.sum(axis=1, keepdims=True)
    whole = counts.sum(axis=0) / counts.sum()
    return float(np.average(0.5 * np.abs(mixes - whole).sum(axis=1), weights=counts.sum(axis=1)))


def test_the_skew_grows_as_alpha_falls() -> None:
    labels = digits().labels
    skews = []
    for alpha in (100.0, 10.0, 1.0, 0.1, 0.01):
        draws = [dirichlet(labels, 10, alpha, np.random.default_rng(seed)) for seed in range(5)]
        skews.append(np.mean([skew(labels, parts) for parts in draws]))
    assert all(less < more for less, more in pairwise(skews)), skews
    assert skews[0] < 0.1 and skews[-1] > 0.6, skews
    assert skew(labels, iid(labels, 10, np.random.default_rng(0))) < 0.15


def test_repair_takes_no_more_than_it_must() -> None:
    """With alpha near 0 nearly every sample sits on few devices; the others get exactly the minimum."""
    labels = np.zeros(100, dtype=np.int64)
    parts = dirichlet(labels, 20, 1e-300, np.random.default_rng(0), minimum=3)
    assert sorted(len(part) for part in parts) == [3] * 19 + [43]


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "shards", "quantity", "clusters"])
def test_the_seed_decides(kind: str) -> None:
    chosen = DataSettings(partition=kind)
    first, again, other = (share_out(chosen, digits(), 10, seed).parts for seed in (3, 3, 4))
    assert all(np.array_equal(part, same) for part, same in zip(first, again, strict=True))
    assert not all(np.array_equal(part, same) for part, same in zip(first, other, strict=True))


@settings(deadline=None)
@given(case=cases(), alpha=st.floats(0.01, 100.0), seed=st.integers(0, 2**32))
def test_quantity_skews_sizes_alone(case: tuple[Labels, int, int], alpha: float, seed: int) -> None:
    labels, devices, minimum = case
    chosen = DataSettings(partition="quantity", alpha=alpha, minimum=minimum)
    parts = partition(chosen, labels, devices, seed)
    assert_partition(parts, len(labels), devices, minimum)
    others = partition(chosen, labels[::-1].copy(), devices, seed)  # whatever the labels
    assert all(np.array_equal(part, other) for part, other in zip(parts, others, strict=True))


def test_quantity_keeps_the_class_mix() -> None:
    labels = digits().labels
    draws = [partition(DataSettings(partition="quantity", minimum=40), labels, 5, seed) for seed in range(3)]
    assert np.mean([skew(labels, parts) for parts in draws]) < 0.15
    assert np.mean([max(map(len, parts)) / min(map(len, parts)) for parts in draws]) > 4


def test_every_partition_has_a_name_in_the_settings() -> None:
    assert tuple(PARTITIONS) == data_settings.PARTITIONS


def test_a_partition_of_ones_own_must_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from sflam.data.partitions.contract import Division

    wrong = {
        "3 parts of 30 samples; it must give 2": [np.arange(10)] * 3,
        "2 parts of 20 samples": [np.arange(10), np.arange(10)],
        "gave a device 1 samples, fewer than data.minimum": [np.arange(1), np.arange(1, 10)],
    }
    for message, parts in wrong.items():
        monkeypatch.setitem(PARTITIONS, "iid", lambda request, parts=parts: Division(parts))
        with pytest.raises(DataError, match=message):
            partition(DataSettings(partition="iid"), np.zeros(10, dtype=np.int64), 2, seed=0)


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "shards", "quantity"])
def test_what_cannot_be_shared_out(kind: str) -> None:
    labels = np.zeros(10, dtype=np.int64)
    chosen = DataSettings(partition=kind, minimum=3)
    with pytest.raises(DataError, match=r"11 devices cannot share 10 .* at most 10 devices"):
        partition(chosen, labels, 11, seed=0)
    with pytest.raises(DataError, match=r"need 15 .* are 10; set data.minimum to 2 or less, .* 3 devices"):
        partition(chosen, labels, 5, seed=0)
    with pytest.raises(DataError, match="0 devices"):
        partition(chosen, labels, 0, seed=0)


@pytest.mark.parametrize("alpha", [0.0, -0.5, float("nan"), float("inf")])
def test_alpha_must_be_positive(alpha: float) -> None:
    with pytest.raises(DataError, match="alpha must be positive"):
        dirichlet(np.zeros(10, dtype=np.int64), 2, alpha, np.random.default_rng(0))


@settings(deadline=None, max_examples=200)
@given(case=cases(), each=st.integers(1, 5), seed=st.integers(0, 2**32))
def test_shards_are_a_partition(case: tuple[Labels, int, int], each: int, seed: int) -> None:
    labels, devices, minimum = case
    each = min(each, len(labels) // devices)
    parts = shards(labels, devices, each, np.random.default_rng(seed), minimum)
    assert_partition(parts, len(labels), devices, minimum)


def test_two_shards_give_a_device_about_two_classes() -> None:
    labels = np.repeat(np.arange(10), 60)  # thirty samples a shard, so that no shard spans two classes
    chosen = DataSettings(partition="shards")
    parts = partition(chosen, labels, 10, seed=0)
    assert [len(part) for part in parts] == [60] * 10
    held = (class_counts(labels, parts) > 0).sum(axis=1)
    assert held.max() == 2 and held.mean() > 1.5
    again, other = (partition(chosen, labels, 10, seed) for seed in (0, 1))
    assert all(np.array_equal(part, same) for part, same in zip(parts, again, strict=True))
    assert not all(np.array_equal(part, same) for part, same in zip(parts, other, strict=True))
    assert (class_counts(labels, shards(labels, 10, 1, np.random.default_rng(0))) > 0).sum() == 10


def test_more_shards_than_samples() -> None:
    with pytest.raises(
        DataError, match=r"5 devices with 3 shards each need 15 .* of 10 .*data.shards .* at most 2"
    ):
        shards(np.zeros(10, dtype=np.int64), 5, 3, np.random.default_rng(0))


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=100), alpha=st.floats(0.01, 100.0))
def test_texts_without_labels_are_shared_out_by_length(lengths: list[int], alpha: float) -> None:
    groups = length_groups(np.array(lengths, dtype=np.int32))
    assert groups.dtype == np.int64 and 0 <= groups.min() and groups.max() <= 9
    order = np.argsort(lengths, kind="stable")
    assert (np.diff(groups[order]) >= 0).all()  # a longer text is in no lower group
    devices = max(1, len(lengths) // 4)
    for kind in ("dirichlet", "shards"):
        each = min(2, len(lengths) // devices)
        chosen = DataSettings(partition=kind, alpha=alpha, minimum=each, shards=each)
        shared = share_out(chosen, texts_of(lengths), devices, seed=0)
        assert_partition(list(shared.parts), len(lengths), devices, each)
        assert np.array_equal(shared.groups, groups) and len(shared.names) == 10
        assert f"data.partition = {kind} shares texts out by length, in 10 groups" in shared.notes[0]


def test_distinct_lengths_make_equal_groups() -> None:
    groups = length_groups(np.random.default_rng(0).permutation(1000).astype(np.int32))
    assert np.bincount(groups).tolist() == [100] * 10
    assert length_groups(np.full(7, 3, dtype=np.int32)).tolist() == [0] * 7
