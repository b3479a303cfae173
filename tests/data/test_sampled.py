"""A sample of a held-out part: of every class its share, whatever the classes' sizes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sflam.data.holdout import sampled


@given(st.lists(st.integers(0, 6), min_size=1, max_size=200), st.data())
def test_every_class_has_its_share_to_less_than_one_sample(labels, data):
    labels = np.array(labels)
    count = data.draw(st.integers(1, len(labels)))
    seed = data.draw(st.integers(0, 9))
    drawn = sampled(labels, count, np.random.default_rng(seed))
    assert len(drawn) == count == len(set(drawn.tolist())) and (np.diff(drawn) > 0).all()
    assert drawn[0] >= 0 and drawn[-1] < len(labels)
    for label in range(7):
        share = count * (labels == label).sum() / len(labels)
        assert abs((labels[drawn] == label).sum() - share) < 1
    assert (drawn == sampled(labels, count, np.random.default_rng(seed))).all()
