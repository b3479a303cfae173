"""Folders of images: classes from sub-folders, sizes made one, unreadable files named."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sflam.data.images import to_pixels
from sflam.data.settings import DataSettings
from sflam.data.sources import load, load_for_prediction
from sflam.errors import DataError
from tests.data.preprocessors import preprocessor


def save(path: Path, level: int, size: tuple[int, int] = (4, 4), mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, level if mode == "L" else (level, 0, 0)).save(path)


def animals(folder: Path, count: int = 5, **options: Any) -> None:
    for number, name in enumerate(("cat", "dog")):
        for index in range(count):
            save(folder / name / f"{index}.png", 100 * number + index, **options)


def settings(folder: Path) -> DataSettings:
    return DataSettings(name=str(folder))


def test_a_sub_folder_is_a_class(tmp_path: Path) -> None:
    animals(tmp_path / "animals")
    (tmp_path / "animals" / "cat" / "notes.txt").write_text("mine")
    (tmp_path / "animals" / ".cache").mkdir()
    splits = load(settings(tmp_path / "animals"), 0, preprocessor())
    assert splits.train.name == "animals" and splits.train.classes == ("cat", "dog")
    assert (len(splits.train), len(splits.test)) == (8, 2)
    for part in (splits.train, splits.test):
        assert part.inputs.shape[1:] == (4, 4, 1)
        assert np.array_equal(part.inputs[:, 0, 0, 0] >= 100, part.labels == 1)
    assert splits.notes == ("1 files in animals are no images and were left out",)


def test_train_and_test_folders(tmp_path: Path) -> None:
    animals(tmp_path / "train", 3)
    animals(tmp_path / "test", 2)
    splits = load(settings(tmp_path), 0, preprocessor())
    assert (len(splits.train), len(splits.test)) == (6, 4) and splits.test.classes == ("cat", "dog")
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_different_sizes_and_colours_become_the_models(tmp_path: Path) -> None:
    save(tmp_path / "a" / "0.png", 7, (9, 5))
    save(tmp_path / "a" / "1.png", 8, (2, 2), "RGB")
    save(tmp_path / "b" / "2.png", 9, (4, 4))
    dataset, notes = load_for_prediction(settings(tmp_path), 0, preprocessor(side=6))
    assert dataset.inputs.shape == (3, 6, 6, 3)
    assert dataset.inputs[:, 3, 3].tolist() == [[7, 7, 7], [8, 0, 0], [9, 9, 9]]
    assert notes == ("images of 2 x 2 to 9 x 5 pixels were resized to the model's 6 x 6",)


def test_large_images_are_reduced_at_once_to_the_same_pixels(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 3), dtype=np.uint8)
    for index, pixels in enumerate(noise):
        (tmp_path / str(index)).mkdir()
        Image.fromarray(pixels).save(tmp_path / str(index) / "0.png")
    side = preprocessor(side=8)
    dataset, _ = load_for_prediction(settings(tmp_path), 0, side)
    assert dataset.inputs.shape == (2, 8, 8, 3)
    assert np.array_equal(to_pixels(dataset.inputs, side.image()), to_pixels(noise, side.image()))


def test_sixteen_bits_black_and_white_and_palettes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((4, 4), 0x8123, np.uint16)).save(tmp_path / "a" / "0.png")
    Image.new("1", (4, 4), 1).save(tmp_path / "a" / "1.png")
    Image.new("RGB", (4, 4), (0, 0, 255)).convert("P").save(tmp_path / "a" / "2.png")
    dataset, _ = load_for_prediction(settings(tmp_path), 0, preprocessor())
    assert dataset.inputs[:, 0, 0].tolist() == [[0x81] * 3, [255] * 3, [0, 0, 255]]


def test_an_unreadable_image_names_its_file(tmp_path: Path) -> None:
    animals(tmp_path)
    (tmp_path / "dog" / "3.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"dog/3\.png: not an image that can be read .*; repair or remove it"):
        load(settings(tmp_path), 0, preprocessor())


def test_folders_that_hold_nothing_to_learn(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"neither tables .* nor images in one sub-folder per class"):
        load(settings(tmp_path / "empty"), 0, preprocessor())
    animals(tmp_path / "more")
    (tmp_path / "more" / "emu").mkdir()
    with pytest.raises(DataError, match="more/emu: no image in this class folder"):
        load(settings(tmp_path / "more"), 0, preprocessor())
    save(tmp_path / "one" / "cat" / "0.png", 0)
    with pytest.raises(DataError, match=r"leaves no test sample|at least two classes"):
        load(settings(tmp_path / "one"), 0, preprocessor())


def test_images_without_classes_can_be_predicted(tmp_path: Path) -> None:
    save(tmp_path / "0.png", 5)
    dataset, notes = load_for_prediction(settings(tmp_path), 0, preprocessor())
    assert dataset.classes == () and dataset.inputs.shape == (1, 4, 4, 1) and "no accuracy" in notes[0]
    with pytest.raises(DataError, match="sub-folder per class"):
        load(settings(tmp_path), 0, preprocessor())


def test_without_pillow_the_extra_of_a_device_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    animals(tmp_path / "animals")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(
        DataError, match=r"reading image files needs Pillow; pip install 'sflam\[device-images\]'"
    ):
        load(settings(tmp_path / "animals"), 0, preprocessor())
