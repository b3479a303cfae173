"""``data.partition = "clusters"``: like samples share a cluster, clusters are skewed, and a seed decides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.data.partition import share_out
from sflam.data.partitions.clusters import clusters
from sflam.data.settings import DataSettings
from sflam.data.sources import digits
from sflam.errors import DataError
from tests.data.samples import assert_partition, texts_of


def topics(count: int, seed: int = 0, words: int = 30, kinds: int = 3):
    """Return texts without labels, each of the words of one topic, and the topics."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, kinds, count)
    lengths = rng.integers(5, 9, count)
    tokens = rng.integers(0, words, (count, 8)) + words * topic[:, None]
    return texts_of(lengths.tolist(), tokens), topic


@pytest.mark.parametrize("words", [10, 60])  # as counted, and reduced to fifty features
def test_texts_of_a_topic_share_a_cluster(words: int) -> None:
    texts, topic = topics(150, words=words)
    found = clusters(texts, 3, np.random.default_rng(0))
    most = [np.bincount(topic[found == cluster]).max() for cluster in range(3)]
    assert sum(most) > 0.9 * len(topic)
    sizes = np.bincount(found, minlength=3)
    assert (np.diff(sizes) <= 0).all()  # the largest first


def test_padding_is_not_compared() -> None:
    texts, _ = topics(60)
    padded = texts.inputs.copy()
    padded[np.arange(8) >= texts.lengths[:, None]] = 999
    other = texts_of(texts.lengths.tolist(), padded)
    assert np.array_equal(*(clusters(each, 3, np.random.default_rng(1)) for each in (texts, other)))


def test_clusters_of_digits_are_nearly_their_classes() -> None:
    data = digits()
    found = clusters(data, 10, np.random.default_rng(0))
    most = [np.bincount(data.labels[found == cluster]).max() for cluster in range(10)]
    assert sum(most) > 0.7 * len(data)


@settings(deadline=None, max_examples=15)
@given(
    devices=st.integers(1, 10), minimum=st.integers(1, 4), alpha=st.floats(0.05, 10), seed=st.integers(0, 99)
)
def test_clusters_make_a_partition(devices: int, minimum: int, alpha: float, seed: int) -> None:
    texts, _ = topics(60, seed)
    chosen = DataSettings(partition="clusters", clusters=3, alpha=alpha, minimum=minimum)
    shared = share_out(chosen, texts, devices, seed)
    assert_partition(shared.parts, 60, devices, minimum)
    assert shared.names == ("cluster 0", "cluster 1", "cluster 2")


def test_devices_differ_by_cluster() -> None:
    texts, topic = topics(300)
    chosen = DataSettings(partition="clusters", clusters=3, alpha=0.1, minimum=5)
    parts = share_out(chosen, texts, 5, seed=0).parts
    largest = [np.bincount(topic[part], minlength=3).max() / len(part) for part in parts]
    assert np.mean(largest) > 0.6  # of three equal topics


def test_fewer_distinct_samples_than_clusters() -> None:
    with pytest.raises(DataError, match=r"1 distinct samples .* fewer than data.clusters .10.; lower it"):
        share_out(DataSettings(partition="clusters"), texts_of([3] * 30), 2, seed=0)
