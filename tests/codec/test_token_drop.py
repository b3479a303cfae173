"""Which tokens go up: how many, in their order, with the one that the head reads, every subset as likely as any."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sflam.codec.guard import guard_of
from sflam.codec.token_drop import TokenDrop
from sflam.errors import ConfigError
from sflam.privacy.settings import SAMPLE, PrivacySettings
from sflam.sizes import sent_tokens

SHARES = st.floats(0.01, 0.99)
COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=9)


@given(SHARES, COUNTS, st.booleans(), st.booleans(), st.integers(0, 2**40))
def test_places_are_ascending_once_each_and_as_many_as_announced(share, counts, anew, last, seed):
    drop, width = TokenDrop(share, 7, anew), max(counts)
    places = drop.places(counts, seed, range(len(counts)), last=last)
    sent = drop.counts(counts)
    assert places.shape == (len(counts), sent.max()) and places.dtype == np.int64
    for row, count, kept in zip(places, counts, sent.tolist(), strict=True):
        own = row[:kept].tolist()
        assert own == sorted(set(own)) and own[-1] < count and (row[kept:] == width).all()
        assert (count - 1 if last else 0) in own
        assert kept == sent_tokens(count, share)
        assert kept >= min(2, count) and count - kept <= share * (count - 1)


@given(SHARES, st.integers(1, 60))
def test_longer_samples_send_no_fewer_and_none_drops_nothing(share, tokens):
    assert sent_tokens(tokens, share) <= sent_tokens(tokens + 1, share) <= tokens + 1
    assert sent_tokens(tokens, 0.0) == tokens


def test_an_image_of_17_tokens_sends_what_the_docs_say():
    assert [sent_tokens(17, share) for share in (0, 0.25, 0.5, 0.75, 0.99)] == [17, 13, 9, 5, 2]


def test_every_subset_is_as_likely_as_any():
    drop, rows = TokenDrop(0.5, 0), 6000
    places = drop.places([5] * rows, 11, range(rows))
    found, counts = np.unique(places, axis=0, return_counts=True)
    assert found.tolist() == [[0, *pair] for pair in itertools.combinations(range(1, 5), 2)]
    # chi-square with 5 degrees of freedom: 20.5 is passed once in a thousand seeds, and this one is fixed
    expected = rows / len(found)
    assert ((counts - expected) ** 2 / expected).sum() < 20.5


def test_a_step_draws_anew_and_a_sample_once():
    counts, samples = [17, 9, 12], (4, 8, 2)
    anew, once = TokenDrop(0.5, 3), TokenDrop(0.5, 3, anew=False)
    assert np.array_equal(anew.places(counts, 1, samples), anew.places(counts, 1, samples))
    assert not np.array_equal(anew.places(counts, 1, samples), anew.places(counts, 2, samples))
    whole = once.places(counts, 1, samples)
    assert np.array_equal(whole, once.places(counts, 2, samples))
    turned = once.places(counts[::-1], 5, samples[::-1])
    assert np.array_equal(whole, turned[::-1]), "whatever a sample comes with"
    alone = once.places([9], 0, (8,))[0]
    assert np.array_equal(alone, whole[1][: len(alone)])
    assert not np.array_equal(TokenDrop(0.5, 4, anew=False).places(counts, 1, samples), whole)


def test_the_settings_make_it():
    assert guard_of(PrivacySettings(), 3) is None
    guard = guard_of(PrivacySettings(drop_tokens=0.25), 3)
    assert guard is not None and guard.drop == TokenDrop(0.25, 3, anew=True) and not guard.clips
    chosen = guard_of(PrivacySettings(drop_tokens=0.25, drop_draw=SAMPLE), 3)
    assert chosen is not None and chosen.drop == TokenDrop(0.25, 3, anew=False)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_out_of_range_is_named(share):
    with pytest.raises(ConfigError, match=r"privacy\.drop_tokens.*below 1"):
        PrivacySettings(drop_tokens=share)
