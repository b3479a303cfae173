"""Named datasets, the held-out share, and the names that are not known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sflam.data.holdout import stratified
from sflam.data.settings import DataSettings
from sflam.data.sources import digits, load, load_for_prediction
from sflam.errors import DataError


def test_digits_are_uint8_images_of_17_levels() -> None:
    dataset = digits()
    assert dataset.inputs.shape == (1797, 8, 8, 1) and dataset.inputs.dtype == np.uint8
    assert len(np.unique(dataset.inputs)) == 17 and dataset.inputs.max() == 255
    assert dataset.classes == tuple("0123456789")


def test_the_split_is_stratified_disjoint_and_complete() -> None:
    splits = load(DataSettings(), seed=0)
    whole = digits()
    assert len(splits.train) + len(splits.test) == len(whole)
    share = np.bincount(splits.test.labels) / np.bincount(whole.labels)
    assert np.abs(share - 0.2).max() < 0.005
    rows = np.concatenate([splits.train.inputs, splits.test.inputs]).reshape(len(whole), -1)
    everything = whole.inputs.reshape(len(whole), -1)
    assert np.array_equal(np.sort(rows, axis=0), np.sort(everything, axis=0))


def test_the_seed_decides_the_split() -> None:
    first, again, other = (load(DataSettings(), seed).test.inputs for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_take_keeps_rows_together() -> None:
    dataset = digits()
    few = dataset.take(np.array([5, 2, 5]))
    assert len(few) == 3 and few.classes == dataset.classes
    assert np.array_equal(few.labels, dataset.labels[[5, 2, 5]])
    assert np.array_equal(few.inputs[1], dataset.inputs[2])


def test_a_class_of_one_stays_in_training() -> None:
    labels = np.array([0] * 10 + [1])
    train, test = stratified(labels, 0.5, np.random.default_rng(0))
    assert 10 in train and len(test) == 5


def test_too_few_samples_to_hold_any_out() -> None:
    with pytest.raises(DataError, match=r"raise data\.test"):
        stratified(np.array([0, 1, 2]), 0.2, np.random.default_rng(0))


def test_an_unknown_name_lists_the_known_and_the_nearest() -> None:
    with pytest.raises(DataError, match=r"did you mean 'digits'\? \(known: digits\).*ending in \.npz"):
        load(DataSettings(name="digit"), seed=0)


def test_a_path_is_read_as_a_file(tmp_path: Path) -> None:
    whole = digits().take(np.arange(50))
    np.savez(tmp_path / "mine.npz", images=whole.inputs[..., 0], label=whole.labels)
    splits = load(DataSettings(name=str(tmp_path / "mine.npz")), seed=0)
    assert splits.train.name == "mine" and splits.train.inputs.shape[1:] == (8, 8, 1)
    assert len(splits.train) + len(splits.test) == 50
    assert splits.notes == ("inputs of mine.npz are taken from its array 'images' (data.input was empty)",)


def test_a_named_dataset_predicts_its_held_out_part(tmp_path: Path) -> None:
    dataset, notes = load_for_prediction(DataSettings(), seed=1)
    assert np.array_equal(dataset.inputs, load(DataSettings(), seed=1).test.inputs)
    assert notes == ("digits: the held-out samples of seed 1",)
    np.savez(tmp_path / "new.npz", image=digits().inputs[:5])
    dataset, _ = load_for_prediction(DataSettings(name=str(tmp_path / "new.npz")), seed=1)
    assert len(dataset) == 5 and dataset.classes == ()
