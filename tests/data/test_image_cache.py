"""Decoded images in a file beside the data: the same pixels, read once, made anew where anything changed."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sflam.data import image_cache, packing
from sflam.data.decode import decoded
from sflam.data.image_cache import FOLDER
from sflam.data.images import ImageSpec, to_pixels
from sflam.data.preparation import prepared_name
from sflam.data.settings import DataSettings
from sflam.data.sources import load
from sflam.errors import DataError
from tests.data.preprocessors import preprocessor
from tests.data.test_folders import animals, save


@pytest.fixture(autouse=True)
def _every_set_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(image_cache, "LEAST_BYTES", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


def images_in(folder: Path, side: int = 4) -> tuple[Any, tuple[str, ...]]:
    splits = load(DataSettings(name=str(folder)), 0, preprocessor(side=side))
    inputs = np.concatenate([splits.train.inputs, splits.test.inputs])
    return inputs, splits.notes


def files(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).glob("images-*.npy"))


def test_the_second_time_nothing_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "animals"
    animals(data, size=(9, 5))
    first, notes = images_in(data)
    assert len(files(data)) == 1 and f"are kept in {data / FOLDER}" in notes[-1]
    monkeypatch.setattr(image_cache, "decoded", None)
    second, later = images_in(data)
    assert np.array_equal(first, second) and later == notes[:-1]
    monkeypatch.undo()
    monkeypatch.setattr(image_cache, "LEAST_BYTES", 1 << 40)
    assert np.array_equal(first, images_in(data)[0])


def test_notes_on_what_was_converted_are_kept_too(tmp_path: Path) -> None:
    data = tmp_path / "animals"
    animals(data)
    save(data / "cat" / "large.png", 9, (30, 20))
    first, notes = images_in(data, side=6)
    second, later = images_in(data, side=6)
    assert notes[0].startswith("images of 4 x 4 to 30 x 20 pixels were resized")
    assert later == notes[:1] and np.array_equal(first, second)


def test_what_changed_is_decoded_again(tmp_path: Path) -> None:
    data = tmp_path / "animals"
    animals(data)
    before, _ = images_in(data)
    changed = data / "cat" / "0.png"
    save(changed, 77)
    os.utime(changed, ns=(0, 0))
    after, _ = images_in(data)
    assert len(files(data)) == 2 and (before != after).any() and (after == 77).any()
    images_in(data, side=5)
    assert len(files(data)) == 3


@pytest.mark.parametrize("damage", ["cut", "words", "shape", "notes"])
def test_a_damaged_file_is_written_again(tmp_path: Path, damage: str) -> None:
    data = tmp_path / "animals"
    animals(data)
    before, _ = images_in(data)
    (path,) = files(data)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-5])
    elif damage == "words":
        path.write_bytes(b"not an array")
    elif damage == "shape":
        np.save(path, np.zeros((2, 3), np.uint8))
    else:
        path.with_suffix(".json").write_text("{")
    after, notes = images_in(data)
    assert np.array_equal(before, after) and "are kept in" in notes[-1]


def test_where_the_data_cannot_be_written_the_users_cache_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "animals"
    animals(data)
    (data / FOLDER).write_text("a file, where the folder would be")
    first, notes = images_in(data)
    assert str(tmp_path / "home" / "sflam") in notes[-1]
    assert np.array_equal(images_in(data)[0], first)
    (tmp_path / "home").rename(tmp_path / "elsewhere")
    (tmp_path / "home").write_text("a file")
    inputs, notes = images_in(data)
    assert np.array_equal(inputs, first) and notes == ()


def test_a_full_disk_leaves_nothing_and_decodes_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "animals"
    animals(data)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    inputs, notes = images_in(data)
    assert len(inputs) == 10 and notes == ()
    assert list((data / FOLDER).iterdir()) == []


def test_an_unreadable_image_is_named_and_leaves_no_file(tmp_path: Path) -> None:
    data = tmp_path / "animals"
    animals(data)
    (data / "dog" / "3.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"dog/3\.png: not an image that can be read"):
        images_in(data)
    assert list((data / FOLDER).iterdir()) == []


def test_a_devices_prepared_samples_do_not_change_with_the_folder(tmp_path: Path) -> None:
    data = tmp_path / "animals"
    animals(data)
    before = prepared_name(DataSettings(name=str(data)), tmp_path)
    images_in(data)
    assert files(data) and prepared_name(DataSettings(name=str(data)), tmp_path) == before


def test_pictures_that_are_neither_files_nor_bytes_are_not_kept(tmp_path: Path) -> None:
    spec = preprocessor().image()
    stored = image_cache.StoredImages([Image.new("L", (4, 4), 3)], str, str(tmp_path))
    assert image_cache.images_of(stored, spec, []).tolist() == [[[[3]] * 4] * 4]
    assert list(tmp_path.iterdir()) == []


@given(
    shapes=st.lists(
        st.tuples(st.sampled_from("LR"), st.sampled_from([(3, 3), (2, 4), (5, 5), (9, 2)])),
        min_size=1,
        max_size=6,
    ),
    side=st.sampled_from([3, 5]),
    channels=st.sampled_from([1, 3]),
)
def test_any_order_of_sizes_and_colours_gives_what_each_gives_alone(
    shapes: list[tuple[str, tuple[int, int]]], side: int, channels: int
) -> None:
    spec = ImageSpec(size=side, channels=channels, mean=(0.5,) * channels, std=(0.5,) * channels)
    random = np.random.default_rng(len(shapes))
    stored = []
    for mode, (width, height) in shapes:
        levels = random.integers(
            0, 256, (height, width) if mode == "L" else (height, width, 3), dtype=np.uint8
        )
        body = io.BytesIO()
        Image.fromarray(levels).save(body, "PNG")
        stored.append(body.getvalue())
    together = to_pixels(decoded(stored, str, lambda: spec, [], packing.in_memory), spec)
    alone = [to_pixels(decoded([one], str, lambda: spec, []), spec)[0] for one in stored]
    assert np.array_equal(together, np.stack(alone))
