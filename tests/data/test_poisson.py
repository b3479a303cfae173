"""Poisson draws: every sample joins every step by a coin of its own, and no step is larger than its limit."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from sflam.data.poisson import batches_of_sizes, drawn_sizes, most_drawn, rate, step_count


@given(st.integers(0, 60), st.integers(1, 20), st.integers(0, 5), st.integers(1, 3), st.integers(0, 2**30))
def test_mini_batches_are_sets_of_own_samples_of_the_drawn_sizes(n, size, steps, epochs, seed):
    where = {"seed": seed, "round": 3, "device": 1}
    own = np.arange(n) * 7 + 2
    sizes = drawn_sizes(n, size, **where, steps=steps, epochs=epochs)
    assert len(sizes) == step_count(n, size, steps, epochs)
    assert all(0 <= rows <= min(n, most_drawn(size)) for rows in sizes)
    assert n > size or (sizes == n).all()  # a device with few samples has all of them in every step
    batches = batches_of_sizes(own, sizes, **where)
    assert [len(batch) for batch in batches] == sizes.tolist()
    for batch in batches:
        assert len(set(batch.tolist())) == len(batch) and set(batch.tolist()) <= set(own.tolist())
    again = batches_of_sizes(own, drawn_sizes(n, size, **where, steps=steps, epochs=epochs), **where)
    assert all(np.array_equal(one, other) for one, other in zip(batches, again, strict=True))


def test_coins_are_independent_and_have_their_rate():
    """Of 12 samples at rate 1/3: how often each comes, and how often any two come together."""
    n, size, steps = 12, 4, 20_000
    where = {"seed": 5, "round": 0, "device": 0}
    seen = np.zeros((steps, n))
    sizes = drawn_sizes(n, size, **where, steps=steps)
    for step, batch in enumerate(batches_of_sizes(np.arange(n), sizes, **where)):
        seen[step, batch] = 1
    q = rate(n, size)
    assert abs(seen.mean(0) - q).max() < 5 * np.sqrt(q * (1 - q) / steps)
    both = seen.T @ seen / steps
    pairs = both[np.triu_indices(n, 1)]
    assert abs(pairs - q**2).max() < 5 * np.sqrt(q**2 * (1 - q**2) / steps)
    found = np.bincount(sizes, minlength=n + 1) / steps
    assert abs(found - binom.pmf(np.arange(n + 1), n, q)).max() < 0.02 and found[0] > 0


@given(st.integers(1, 300))
def test_hardly_any_step_would_be_larger_than_the_limit(size):
    most = most_drawn(size)
    assert all(binom.sf(most, n, min(1, size / n)) < 1e-12 for n in (most, 2 * most, 10**6))


def test_a_secret_decides_which_samples_come_and_not_how_many():
    where = {"seed": 1, "round": 2, "device": 0}
    sizes = drawn_sizes(50, 8, **where, steps=6)
    own = np.arange(50)
    public, mine = batches_of_sizes(own, sizes, **where), batches_of_sizes(own, sizes, **where, secret=b"a")
    again = batches_of_sizes(own, sizes, **where, secret=b"a", attempt=1)
    for other in (mine, again, batches_of_sizes(own, sizes, **where, secret=b"b")):
        assert [len(one) for one in other] == [len(one) for one in public]
        assert not all(np.array_equal(one, two) for one, two in zip(public, other, strict=True))
    assert not all(np.array_equal(one, two) for one, two in zip(mine, again, strict=True))
