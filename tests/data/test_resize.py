"""Resizing without Pillow gives Pillow's own numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sflam.data.images import in_colours
from sflam.data.resize import FILTERS, resized

SIZES = st.integers(1, 70)


@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(SIZES, SIZES),
    out=st.tuples(SIZES, SIZES),
    channels=st.sampled_from([1, 3]),
    filter=st.sampled_from(sorted(FILTERS)),
    seed=st.integers(0, 99),
)
def test_any_size_by_any_filter(
    shape: tuple[int, int], out: tuple[int, int], channels: int, filter: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    pixels = (
        rng.choice([0, 255, 128], (*shape, channels))
        if seed % 2
        else rng.integers(0, 256, (*shape, channels))
    )
    image = pixels.astype(np.uint8)
    theirs = Image.fromarray(image[..., 0] if channels == 1 else image)
    wanted = np.asarray(theirs.resize(out[::-1], Image.Resampling(filter))).reshape(*out, channels)
    if out[0] < shape[0]:  # in one order or the other, which Pillow's releases choose differently
        theirs = theirs.resize((out[1], shape[0]), Image.Resampling(filter))
        wanted = np.asarray(theirs.resize(out[::-1], Image.Resampling(filter))).reshape(*out, channels)
    assert np.array_equal(resized(image, *out, filter), wanted)


def test_colours() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3)).astype(np.uint8)
    grey = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in rgb])[..., None]
    assert np.array_equal(in_colours(rgb, 1), grey)
    back = np.stack([np.asarray(Image.fromarray(image[..., 0]).convert("RGB")) for image in grey])
    assert np.array_equal(in_colours(grey, 3), back)
    assert in_colours(rgb, 3) is rgb
