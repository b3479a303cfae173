"""Whose each sample is, from every kind of source; held-out rows and blank texts take theirs along."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sflam.data.dataset import Splits
from sflam.data.partition import share_out
from sflam.data.settings import DataSettings
from sflam.data.sources import load, load_for_prediction
from sflam.errors import DataError
from tests.data.preprocessors import preprocessor
from tests.data.test_folders import save
from tests.data.test_tables import csv, jsonl, parquet

COUNT = 40
WRITERS = [f"w{number % 5}" for number in range(COUNT)]
TEXTS = [f"text {number % 5} {number}" for number in range(COUNT)]  # a text names its writer
LABELS = [number % 2 for number in range(COUNT)]


def write_csv(folder: Path) -> Path:
    rows = [",".join(map(str, row)) for row in zip(TEXTS, LABELS, WRITERS, strict=True)]
    return csv(folder / "few.csv", "text,label,writer", rows)


def write_jsonl(folder: Path) -> Path:
    return jsonl(folder / "few.jsonl", text=TEXTS, label=LABELS, writer=[int(w[1:]) for w in WRITERS])


def write_parquet(folder: Path) -> Path:
    return parquet(folder / "few.parquet", text=TEXTS, label=LABELS, writer=WRITERS)


def write_npz(folder: Path) -> Path:
    pixels = np.array([number % 5 for number in range(COUNT)], np.uint8).reshape(-1, 1, 1)
    np.savez(folder / "few.npz", image=pixels, label=LABELS, writer=WRITERS)
    return folder / "few.npz"


def write_images(folder: Path) -> Path:
    lines = ["file_name,writer"]
    for number in range(COUNT):
        name = f"{'ab'[number % 2]}/{number}.png"
        (folder / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        save(folder / "pictures" / name, number % 5)
        lines.append(f"{name},w{number % 5}")
    (folder / "pictures/metadata.csv").write_text("\n".join(lines) + "\n")
    return folder / "pictures"


SOURCES: dict[str, Callable[[Path], Path]] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
    "npz": write_npz,
    "folder of images": write_images,
}


def read(path: Path, **settings: object) -> tuple[DataSettings, Splits]:
    chosen = DataSettings(**{"name": str(path), "partition": "column", "column": "writer", **settings})
    return chosen, load(chosen, 0, preprocessor(channels=1))


@pytest.mark.parametrize("source", SOURCES)
def test_a_device_holds_the_samples_of_its_writer(source: str, tmp_path: Path) -> None:
    chosen, splits = read(SOURCES[source](tmp_path))
    train = splits.train
    shared = share_out(chosen, train, 5, seed=0)
    assert sum(map(len, shared.parts)) == len(train) < COUNT
    for device, part in enumerate(shared.parts):
        # the writer is the fifth letter after the mark, or the pixel itself
        seen = train.inputs[part][:, 6] - ord("0") if train.kind == "text" else train.inputs[part].reshape(-1)
        assert np.unique(seen).tolist() == [device]
        if "folder" not in source:  # there the order is that of the paths
            assert (train.origin.rows[part] % 5 == device).all()
        assert train.origin.stored == COUNT
    predicted, _ = load_for_prediction(chosen, 0, preprocessor(channels=1))  # whose it was does not matter
    assert len(predicted) == COUNT


@pytest.mark.parametrize("source", SOURCES)
def test_a_column_that_is_not_there(source: str, tmp_path: Path) -> None:
    path = SOURCES[source](tmp_path)
    with pytest.raises(DataError, match=r"unknown (column|array) 'witer'.*writer"):
        read(path, column="witer")
    read(path, column="witer", partition="iid")  # not looked for


def test_blank_texts_take_their_rows_along(tmp_path: Path) -> None:
    texts = [text if number % 4 else " " for number, text in enumerate(TEXTS)]
    path = jsonl(tmp_path / "few.jsonl", text=texts, writer=WRITERS)
    chosen, splits = read(path, label="")
    train = splits.train
    shared = share_out(chosen, train, 5, seed=0)
    assert (train.origin.rows % 4 != 0).all() and train.origin.stored == COUNT
    for device, part in enumerate(shared.parts):
        assert (train.origin.rows[part] % 5 == device).all()


def test_a_test_part_needs_no_such_column(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    rows = [f"{text},{label},{writer}" for text, label, writer in zip(TEXTS, LABELS, WRITERS, strict=True)]
    csv(folder / "train.csv", "text,label,writer", rows)
    csv(folder / "test.csv", "text,label", ["a text,0", "another,1"])
    chosen, splits = read(folder)
    assert len(splits.test) == 2 and splits.train.origin.stored == COUNT
    assert [len(part) for part in share_out(chosen, splits.train, 5, 0).parts] == [8] * 5


def test_pictures_without_a_row_or_metadata(tmp_path: Path) -> None:
    path = write_images(tmp_path)
    lines = (path / "metadata.csv").read_text().splitlines()
    (path / "metadata.csv").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(DataError, match=r"metadata.csv: has no writer of .*39.png .1 in all.; add its row"):
        read(path)
    (path / "metadata.csv").unlink()
    with pytest.raises(DataError, match=r"needs .*metadata.csv with the columns file_name and writer"):
        read(path)


def test_train_and_test_folders_of_images(tmp_path: Path) -> None:
    path = write_images(tmp_path)
    path.rename(tmp_path / "train")
    whole = tmp_path / "divided"
    whole.mkdir()
    (tmp_path / "train").rename(whole / "train")
    for name in ("a", "b"):
        (whole / "test" / name).mkdir(parents=True)
        save(whole / "test" / name / "0.png", 3)
    chosen, splits = read(whole)
    assert len(splits.train) == COUNT and splits.train.origin.stored == COUNT
    parts = share_out(chosen, splits.train, 5, 0).parts
    assert [np.unique(splits.train.inputs[part]).tolist() for part in parts] == [[n] for n in range(5)]


def test_metadata_with_labels_is_a_table_of_paths(tmp_path: Path) -> None:
    path = write_images(tmp_path)
    lines = (path / "metadata.csv").read_text().splitlines()
    labels = ["label", *("cd"[number % 2] for number in range(COUNT))]
    both = [f"{line},{label}" for line, label in zip(lines, labels, strict=True)]
    (path / "metadata.csv").write_text("\n".join(both) + "\n")
    chosen, splits = read(path, input="file_name")
    assert splits.train.classes == ("c", "d")
    parts = share_out(chosen, splits.train, 5, 0).parts
    assert [np.unique(splits.train.inputs[part]).tolist() for part in parts] == [[n] for n in range(5)]


def test_the_column_is_not_guessed_to_be_the_inputs(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "few.jsonl", words=TEXTS, label=LABELS, writer=WRITERS)
    _, splits = read(path)
    assert splits.train.column == "words"
    with pytest.raises(DataError, match="could be the inputs"):
        read(path, partition="iid")


def test_an_array_that_names_nobody(tmp_path: Path) -> None:
    np.savez(tmp_path / "few.npz", image=np.zeros((4, 2, 2), np.uint8), label=[0, 1, 0, 1], writer=[0.5] * 4)
    with pytest.raises(
        DataError, match=r"'writer' is float64 .4,.; data.column names an array of 4 whole numbers"
    ):
        read(tmp_path / "few.npz")


def test_named_data_has_no_columns() -> None:
    chosen = DataSettings(partition="column", column="writer")
    with pytest.raises(DataError, match="needs a source with columns, and digits has none"):
        share_out(chosen, load(chosen, 0).train, 5, 0)
