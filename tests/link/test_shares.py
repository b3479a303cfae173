"""A device checks the rows that a server drew for it, before it trains on any."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from sflam.data.sampling import batches_of_shares, round_shares
from sflam.errors import ServeError
from sflam.link.contract import shares_of


@given(
    counts=some.lists(some.integers(1, 30), min_size=1, max_size=6),
    size=some.integers(1, 40),
    steps=some.integers(0, 9),
    epochs=some.integers(1, 3),
    round=some.integers(0, 5),
)
def test_what_a_server_draws_is_taken_and_every_row_comes_once_a_pass(counts, size, steps, epochs, round):
    drawn = round_shares(dict(enumerate(counts)), size, seed=7, round=round, steps=steps, epochs=epochs)
    for device, samples in enumerate(counts):
        own = shares_of(drawn[device].tolist(), samples, steps, epochs)
        rows = batches_of_shares(np.arange(samples), np.array(own), seed=7, round=round, device=device)
        assert [len(each) for each in rows] == own
        if not steps:
            assert np.bincount(np.concatenate(rows), minlength=samples).tolist() == [epochs] * samples


@pytest.mark.parametrize(
    ("found", "steps", "message"),
    [
        (None, 3, "no list of rows"),
        ([1, "2", 0], 3, "no list of rows"),
        ([1, True, 0], 3, "no list of rows"),
        ([1, -1, 0], 3, "no list of rows"),
        ([1.0, 1, 0], 3, "no list of rows"),
        ([1, 1], 3, "shares of 2 steps; learn.local_steps is 3"),
        ([4, 2, 0], 3, "step 1 is 2 rows; 1 of 5 samples are left"),
        ([6, 0, 0], 3, "step 0 is 6 rows; 5 of 5"),
        ([5, 1], 0, "shares are 6 rows; 2 passes over 5 samples"),
        ([5, 5, 1], 0, "shares are 11 rows"),
    ],
)
def test_what_was_not_agreed_is_refused(found, steps, message):
    with pytest.raises(ServeError, match=message):
        shares_of(found, 5, steps, 2)
