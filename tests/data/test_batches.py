"""Mini-batches: complete passes, ragged last batch kept, exact step counts, reproducible."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sflam.data.batches import POOL, batches, round_batches


@given(
    count=st.integers(1, 60), size=st.integers(1, 70), epochs=st.integers(1, 4), seed=st.integers(0, 2**32)
)
def test_every_pass_sees_every_sample_once(count: int, size: int, epochs: int, seed: int) -> None:
    indices = np.arange(100, 100 + count)
    drawn = batches(indices, size, np.random.default_rng(seed), epochs=epochs)
    per_pass = -(-count // size)
    assert len(drawn) == epochs * per_pass
    for epoch in range(epochs):
        one = drawn[epoch * per_pass : (epoch + 1) * per_pass]
        assert [len(batch) for batch in one[:-1]] == [size] * (per_pass - 1)
        assert np.array_equal(np.sort(np.concatenate(one)), indices)


@given(count=st.integers(1, 60), size=st.integers(1, 70), steps=st.integers(1, 40))
def test_exactly_so_many_steps(count: int, size: int, steps: int) -> None:
    drawn = batches(np.arange(count), size, np.random.default_rng(0), steps=steps)
    assert len(drawn) == steps and all(1 <= len(batch) <= min(size, count) for batch in drawn)
    uses = np.bincount(np.concatenate(drawn), minlength=count)
    assert uses.max() - uses.min() <= 1  # no sample comes again before the pass is over


def test_a_ragged_last_batch_is_kept() -> None:
    drawn = batches(np.arange(10), 4, np.random.default_rng(0))
    assert [len(batch) for batch in drawn] == [4, 4, 2]


def test_fewer_samples_than_a_batch_give_one_smaller_batch() -> None:
    drawn = batches(np.arange(3), 16, np.random.default_rng(0))
    assert [sorted(batch) for batch in drawn] == [[0, 1, 2]]


def test_a_batch_of_one_and_a_device_without_samples() -> None:
    assert [len(batch) for batch in batches(np.arange(3), 1, np.random.default_rng(0))] == [1, 1, 1]
    assert batches(np.arange(0), 4, np.random.default_rng(0), steps=5) == []


def test_passes_are_reshuffled() -> None:
    first, second = batches(np.arange(50), 50, np.random.default_rng(0), epochs=2)
    assert not np.array_equal(first, second)


def test_round_and_device_name_the_stream() -> None:
    def drawn(seed: int, round: int, device: int) -> list[int]:
        parts = round_batches(np.arange(40), 8, seed=seed, round=round, device=device)
        return [int(index) for index in np.concatenate(parts)]

    assert drawn(1, 2, 3) == drawn(1, 2, 3)
    others = [drawn(2, 2, 3), drawn(1, 3, 3), drawn(1, 2, 4), drawn(1, 3, 2)]
    assert drawn(1, 2, 3) not in others


@given(
    count=st.integers(1, 300), size=st.integers(1, 20), epochs=st.integers(1, 3), seed=st.integers(0, 2**32)
)
def test_every_pass_in_buckets_sees_every_sample_once(count: int, size: int, epochs: int, seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 50, 100 + count).astype(np.int32)
    indices = np.arange(100, 100 + count)
    drawn, again = (
        batches(indices, size, np.random.default_rng(seed), epochs=epochs, lengths=lengths) for _ in range(2)
    )
    assert all(np.array_equal(first, second) for first, second in zip(drawn, again, strict=True))
    per_pass = -(-count // size)
    assert len(drawn) == epochs * per_pass
    for epoch in range(epochs):
        one = drawn[epoch * per_pass : (epoch + 1) * per_pass]
        assert [len(batch) for batch in one[:-1]] == [size] * (per_pass - 1)
        assert np.array_equal(np.sort(np.concatenate(one)), indices)


def test_buckets_hold_similar_lengths_in_random_order() -> None:
    lengths = np.random.default_rng(0).integers(1, 101, 8 * POOL).astype(np.int32)

    def drawn(grouped: bool) -> list[np.ndarray]:
        rng = np.random.default_rng(1)
        return batches(np.arange(len(lengths)), 8, rng, lengths=lengths if grouped else None)

    def padded(found: list[np.ndarray]) -> int:
        return sum(int(lengths[batch].max() * len(batch) - lengths[batch].sum()) for batch in found)

    assert padded(drawn(True)) < 0.15 * padded(drawn(False))
    longest = [int(lengths[batch].max()) for batch in drawn(True)]
    assert longest != sorted(longest) and len(set(longest)) > POOL / 2


def test_buckets_mix_differently_on_every_pass() -> None:
    lengths = np.random.default_rng(0).integers(1, 101, 40 * POOL).astype(np.int32)
    found = batches(np.arange(len(lengths)), 4, np.random.default_rng(0), epochs=2, lengths=lengths)
    first, second = ({frozenset(batch.tolist()) for batch in half} for half in (found[:160], found[160:]))
    assert len(first & second) < 5


def test_devices_take_mini_batches_of_like_length_together() -> None:
    """What several devices compute in one pass is of similar length, whatever they hold."""
    draw = np.random.default_rng(1)
    lengths = draw.integers(3, 60, 4000).astype(np.int32)
    parts = np.split(draw.permutation(4000), [900, 1300, 2600, 2700])
    spread = []
    for seen in range(8):
        steps = [
            round_batches(part, 8, seed=4, round=seen, device=device, steps=3, lengths=lengths)
            for device, part in enumerate(parts)
        ]
        spread += [np.ptp([np.mean(lengths[batch]) for batch in step]) for step in zip(*steps, strict=True)]
    assert np.median(spread) < 10  # of random mini-batches of 8: about 15
