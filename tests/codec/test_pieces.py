"""Joined and divided codes are those of the tokens encoded apart."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.codec.pieces import join, split
from sflam.codec.quantizers import quantizer


@settings(deadline=None, max_examples=80)
@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    dim=st.integers(1, 9),
    bits=st.integers(1, 16),
    scheme=st.sampled_from(["uniform", "rotated", "identity"]),
)
def test_join_and_split_undo_each_other(counts: list[int], dim: int, bits: int, scheme: str) -> None:
    draw, codec = np.random.default_rng(dim), quantizer(scheme)
    parts = [
        codec.encode(draw.standard_normal((count, dim)).astype(np.float32), bits, seed)
        for seed, count in enumerate(counts)
    ]
    whole = join(parts)
    assert np.array_equal(codec.decode(whole), np.concatenate([codec.decode(part) for part in parts]))
    for part, again in zip(parts, split(whole, counts), strict=True):
        assert part.codes.tobytes() == again.codes.tobytes() and part.side.tobytes() == again.side.tobytes()
        assert (part.tokens, part.bits, part.scheme) == (again.tokens, again.bits, again.scheme)
