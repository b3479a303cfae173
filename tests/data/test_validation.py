"""A validation part beside the test part: held out by a stream of its own, or what the data brings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam import config
from sflam.data.dataset import Dataset
from sflam.data.settings import VALIDATION, DataSettings
from sflam.data.sources import digits, load, load_for_prediction
from sflam.errors import ConfigError, DataError
from tests.data.preprocessors import preprocessor
from tests.data.test_folders import animals


def keys(dataset: Dataset) -> list[bytes]:
    return [row.tobytes() for row in dataset.inputs]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 50), st.floats(0.02, 0.9))
def test_asking_for_one_moves_no_test_sample(seed: int, share: float) -> None:
    plain = load(DataSettings(), seed)
    three = load(DataSettings(validation=share), seed)
    assert plain.validation is None and three.validation is not None
    assert keys(three.test) == keys(plain.test)
    assert sorted(keys(three.train) + keys(three.validation)) == sorted(keys(plain.train))
    # In their order: who is left keeps its place.
    kept = set(keys(three.train))
    assert [key for key in keys(plain.train) if key in kept] == keys(three.train)
    for label in range(10):
        there = int((plain.train.labels == label).sum())
        assert int((three.validation.labels == label).sum()) == min(round(share * there), there - 1)


def test_the_validation_part_is_a_draw_of_its_own() -> None:
    first, second = (load(DataSettings(validation=0.3), seed).validation for seed in (0, 1))
    assert first is not None and second is not None and keys(first) != keys(second)
    again = load(DataSettings(validation=0.3), 0).validation
    assert again is not None and keys(again) == keys(first)


def test_it_is_noted() -> None:
    (note,) = load(DataSettings(validation=0.25), 0).notes
    assert note.endswith("held out for validation: a share of 0.25, which data.validation sets")
    assert load(DataSettings(), 0).notes == ()


def test_one_too_small_is_one_clear_line(tmp_path: Path) -> None:
    few = np.flatnonzero(digits().labels < 2)[:12]
    np.savez(tmp_path / "few.npz", image=digits().inputs[few], label=digits().labels[few])
    with pytest.raises(DataError, match=r"leaves no validation sample in any class; raise data\.validation"):
        load(DataSettings(name=str(tmp_path / "few.npz"), validation=0.01), 0)


@pytest.mark.parametrize("share", ["1", "-0.1"])
def test_a_share_out_of_range_is_refused(share: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.validation is .* must be in \[0, 1\)"):
        config.load(None, [f"data.validation={share}"])


def test_a_job_holds_one_out_where_something_is_chosen() -> None:
    def share(*keys: str) -> float:
        return config.load(None, list(keys)).samples.validation

    assert share() == 0 == config.load(None).data.validation
    assert share("learn.keep=best") == VALIDATION == share("learn.stop_after=2")
    assert share("learn.keep=best", "data.validation=0.3") == 0.3 == share("data.validation=0.3")


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize(
    ("parts", "test", "validation"),
    [
        ({"train": 9, "test": 3, "validation": 2}, 6, 4),
        ({"train": 9, "val": 2, "test": 3}, 6, 4),
        ({"train": 9, "validation": 2, "dev": 3}, 4, 6),
    ],
)
def test_a_third_split_of_a_folder_is_used(
    tmp_path: Path, parts: dict[str, int], test: int, validation: int, share: float
) -> None:
    for name, count in parts.items():
        animals(tmp_path / name, count)
    wanted = DataSettings(name=str(tmp_path), validation=share)
    splits = load(wanted, 0, preprocessor())
    assert splits.validation is not None
    sizes = [len(part) for part in (splits.train, splits.test, splits.validation)]
    assert sizes == [18, test, validation]
    assert all(part.classes == ("cat", "dog") for part in (splits.test, splits.validation))
    served = [note for note in splits.notes if "serves as its" in note]
    assert len(served) == ("test" not in parts) + ("validation" not in parts or "test" not in parts)
    predicted, notes = load_for_prediction(wanted, 0, preprocessor())
    assert keys(predicted) == keys(splits.test) and "split" in notes[-1]


def test_a_folder_with_a_test_part_alone_gives_of_its_training_samples(tmp_path: Path) -> None:
    animals(tmp_path / "train", 8)
    animals(tmp_path / "test", 3)
    splits = load(DataSettings(name=str(tmp_path), validation=0.25), 0, preprocessor())
    assert splits.validation is not None
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [12, 4, 6]
