"""Global sampling: the devices' shares of a step are those of a uniform sample without replacement."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sflam.data.sampling import batches_of_shares, round_shares, shares

COUNTS = st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any)


@given(COUNTS, st.integers(1, 20), st.integers(1, 3), st.integers(0, 2**30))
def test_every_pass_has_every_sample_once(counts, size, epochs, seed):
    found = shares(counts, size, np.random.default_rng(seed), epochs=epochs)
    per_pass = -(-sum(counts) // size)
    assert found.shape == (epochs * per_pass, len(counts))
    for number in range(epochs):
        own = found[number * per_pass : (number + 1) * per_pass]
        assert own.sum(0).tolist() == counts
        assert set(own.sum(1)[:-1]) <= {size} and 1 <= own[-1].sum() <= size


@given(COUNTS, st.integers(1, 20), st.integers(1, 9), st.integers(0, 2**30))
def test_batches_have_the_sizes_of_the_shares_and_repeat_no_sample_in_a_pass(counts, size, steps, seed):
    edges = [0, *np.cumsum(counts).tolist()]
    parts = {k: np.arange(a, b) for k, (a, b) in enumerate(pairwise(edges))}
    own = round_shares(dict(enumerate(counts)), size, seed=seed, round=2, steps=steps)
    drawn = {k: batches_of_shares(part, own[k], seed=seed, round=2, device=k) for k, part in parts.items()}
    per_pass = -(-sum(counts) // size)
    for k, batches in drawn.items():
        assert [len(batch) for batch in batches] == own[k].tolist()
        for start in range(0, steps, per_pass):
            rows = np.concatenate(batches[start : start + per_pass])
            assert len(set(rows.tolist())) == len(rows) and set(rows.tolist()) <= set(parts[k].tolist())


def test_shares_have_the_hypergeometric_mean_and_variance():
    counts, size, draws = [50, 30, 20], 10, 20_000
    rng = np.random.default_rng(0)
    found = np.array([shares(counts, size, rng, steps=1)[0] for _ in range(draws)])
    share = np.array(counts) / 100
    error = np.sqrt(size * share * (1 - share) * 90 / 99 / draws)
    assert (abs(found.mean(0) - size * share) < 5 * error).all()
    assert np.allclose(found.var(0), size * share * (1 - share) * 90 / 99, rtol=0.05)
