"""Flipped labels and noise: on the devices named alone, as much as asked, by the seed, and never on test samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.data.partition import share_out
from sflam.data.settings import DataSettings
from sflam.data.sources import digits, load
from sflam.errors import ConfigError, DataError
from tests.data.samples import labelled, texts_of


@settings(deadline=None)
@given(share=st.floats(0.0, 1.0), classes=st.integers(2, 6), seed=st.integers(0, 9), device=st.integers(0, 3))
def test_labels_of_one_device_are_flipped(share: float, classes: int, seed: int, device: int) -> None:
    train = labelled(np.arange(80, dtype=np.int64) % classes)
    chosen = DataSettings(flipped=share, flipped_devices=(device,))
    shared = share_out(chosen, train, 4, seed)
    plain = share_out(DataSettings(), train, 4, seed)
    assert all(np.array_equal(a, b) for a, b in zip(shared.parts, plain.parts, strict=True))
    wrong = np.flatnonzero(shared.train.labels != train.labels)
    assert len(wrong) == round(share * len(shared.parts[device])) == shared.flips[device] == sum(shared.flips)
    assert set(wrong) <= set(shared.parts[device].tolist())
    assert shared.train.labels.min() >= 0 and shared.train.labels.max() < classes
    assert np.array_equal(shared.groups, train.labels)  # counted by the true ones
    again = share_out(chosen, train, 4, seed)
    assert np.array_equal(shared.train.labels, again.train.labels)


def test_flips_reach_every_other_class_alike() -> None:
    train = labelled(np.arange(6000, dtype=np.int64) % 4)
    shared = share_out(DataSettings(flipped=1.0, partition="iid"), train, 1, seed=0)
    moved = (shared.train.labels - train.labels) % 4
    counts = np.bincount(moved, minlength=4)
    assert counts[0] == 0 and np.abs(counts[1:] - 2000).max() < 150  # four deviations


def test_what_is_held_out_is_never_changed() -> None:
    plain, skewed = DataSettings(), DataSettings(flipped=1.0, flipped_devices=(0, 1), noise=0.5)
    before, after = load(plain, 0), load(skewed, 0)
    shared = share_out(skewed, after.train, 2, 0)
    assert np.array_equal(before.test.labels, after.test.labels)
    assert np.array_equal(before.test.inputs, after.test.inputs)
    assert (shared.train.labels != after.train.labels).all() and (
        after.train.labels == before.train.labels
    ).all()
    assert np.array_equal(after.train.inputs, before.train.inputs)  # what the source holds stays


def test_noise_grows_from_device_to_device() -> None:
    train = digits()
    grey = np.full_like(train.inputs, 128)
    train = type(train)(train.name, "image", grey, None, train.labels, train.classes)
    shared = share_out(DataSettings(partition="iid", noise=0.01), train, 4, seed=0)
    for device, part in enumerate(shared.parts):
        found = (shared.train.inputs[part].astype(float) - 128) / 255
        assert abs(found.mean()) < 0.002
        assert found.var() == pytest.approx(0.01 * (device + 1) / 4, rel=0.05)
    again = share_out(DataSettings(partition="iid", noise=0.01), train, 4, seed=0)
    assert np.array_equal(shared.train.inputs, again.train.inputs)


def test_each_device_has_a_camera_of_its_own() -> None:
    """By hand on grey ramps: brighter and steeper from the first device to the last, the middle one as it was."""
    ramp = np.broadcast_to(
        np.arange(40, 216, 11, dtype=np.uint8)[None, None, :, None], (30, 16, 16, 1)
    ).copy()
    labels = np.arange(30, dtype=np.int64) % 3
    train = type(digits())("ramps", "image", ramp, None, labels, ("a", "b", "c"))
    chosen = DataSettings(partition="iid", brightness=0.1, contrast=0.2)
    shared = share_out(chosen, train, 3, seed=0)
    for device, part in enumerate(shared.parts):
        u = device - 1
        expected = 127.5 + (1 + 0.2 * u) * (ramp[0].astype(float) - 127.5) + 25.5 * u
        assert np.abs(shared.train.inputs[part] - np.clip(expected, 0, 255)).max() <= 0.5 + 1e-6
    assert np.array_equal(train.inputs, ramp), "what the source holds stays"


def test_images_are_turned_counter_clockwise_by_the_last_device_and_back_by_the_first() -> None:
    image = np.zeros((6, 15, 15, 1), dtype=np.uint8)
    image[:, 2, 6:9] = 255  # a bar at the top
    train = type(digits())("bars", "image", image, None, np.arange(6, dtype=np.int64) % 2, ("a", "b"))
    shared = share_out(DataSettings(partition="iid", rotation=90.0), train, 3, seed=0)
    right, same, left = (shared.train.inputs[part][0, :, :, 0] for part in shared.parts)
    assert np.array_equal(same, image[0, :, :, 0])
    assert np.array_equal(left, np.rot90(same)) and np.array_equal(right, np.rot90(same, -1))
    assert left[6:9, 2].min() == 255 and right[6:9, 12].min() == 255


def test_one_device_alone_has_images_as_they_are() -> None:
    train = digits()
    chosen = DataSettings(partition="iid", brightness=0.5, contrast=0.5, rotation=45.0)
    assert np.array_equal(share_out(chosen, train, 1, seed=0).train.inputs, train.inputs)


@pytest.mark.parametrize("key", ["brightness", "contrast", "rotation"])
def test_texts_have_no_camera(key: str) -> None:
    with pytest.raises(DataError, match=f"data.{key} = 1 changes images, and .* holds texts"):
        share_out(DataSettings(partition="iid", **{key: 1.0}), texts_of([5] * 20), 2, seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"flipped": 0.5, "flipped_devices": (5,)}, "names device 5, but there are 2: 0 to 1"),
        ({"flipped": 0.5}, "flips labels, and texts has 0 classes"),
        ({"noise": 0.1}, "noise on pixels, and texts holds texts"),
    ],
)
def test_what_cannot_be_skewed(chosen: dict, message: str) -> None:
    train = labelled(np.arange(20) % 2) if "flipped_devices" in chosen else texts_of([3] * 20)
    with pytest.raises(DataError, match=message):
        share_out(DataSettings(partition="iid", **chosen), train, 2, seed=0)


@pytest.mark.parametrize(
    "chosen",
    [
        {"flipped": 1.5},
        {"flipped_devices": ()},
        {"flipped_devices": (0, 0)},
        {"flipped_devices": (-1,)},
        {"noise": -1},
    ],
)
def test_ranges(chosen: dict) -> None:
    with pytest.raises(ConfigError, match=f"data.{next(iter(chosen))}"):
        DataSettings(**chosen)
