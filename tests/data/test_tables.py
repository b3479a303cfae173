"""Parquet, CSV and JSON lines: columns, types, class names, splits, and one clear line for what cannot be read."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from sflam.data.dataset import Dataset, Splits
from sflam.data.settings import DataSettings
from sflam.data.sources import load, load_for_prediction
from sflam.errors import DataError
from tests.data.preprocessors import FIRST, LAST, preprocessor

TEXTS = [f"text number {index}" for index in range(20)]
NUMBERS = [index % 2 for index in range(20)]


def csv(path: Path, head: str, rows: Sequence[object]) -> Path:
    path.write_text("\n".join([head, *map(str, rows)]) + "\n")
    return path


def jsonl(path: Path, **columns: Sequence[Any]) -> Path:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def parquet(path: Path, features: dict[str, Any] | None = None, **columns: Sequence[Any]) -> Path:
    schema = None if features is None else datasets.Features(features).arrow_schema
    pyarrow.parquet.write_table(pyarrow.table(dict(columns), schema), path)
    return path


def png(level: int, side: int = 4) -> bytes:
    out = io.BytesIO()
    Image.new("L", (side, side), level).save(out, "PNG")
    return out.getvalue()


def read(path: Path, **settings: Any) -> Splits:
    return load(DataSettings(name=str(path), **settings), 0, preprocessor())


def words(dataset: Dataset) -> list[str]:
    """Return the texts of a dataset of letters; their marks must be where they belong."""
    assert dataset.lengths is not None
    rows = [row[:length] for row, length in zip(dataset.inputs, dataset.lengths, strict=True)]
    assert all((row[0], row[-1]) == (FIRST, LAST) for row in rows)
    return ["".join(map(chr, row[1:-1])) for row in rows]


def whole(path: Path, **settings: Any) -> tuple[Dataset, tuple[str, ...]]:
    return load_for_prediction(DataSettings(name=str(path), **settings), 0, preprocessor())


def test_csv_with_class_names(tmp_path: Path) -> None:
    rows = [f'"{text}, and more",{("bad", "good")[n]}' for text, n in zip(TEXTS, NUMBERS, strict=True)]
    splits = read(csv(tmp_path / "reviews.csv", "sentence,label", rows))
    assert splits.train.name == "reviews" and splits.train.classes == ("bad", "good")
    assert (len(splits.train), len(splits.test)) == (16, 4) and splits.test.labels.tolist().count(1) == 2
    for part in (splits.train, splits.test):
        for text, label in zip(words(part), part.labels, strict=True):
            assert NUMBERS[TEXTS.index(text.removesuffix(", and more"))] == label
    assert len(splits.notes) == 1 and "column 'sentence' (data.input was empty)" in splits.notes[0]


def test_a_text_that_reads_na_is_a_text(tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", "text,label", ["NA,0", "null,1", "None,0", "x,1"])
    assert words(whole(path)[0]) == ["NA", "null", "None", "x"]


def test_json_lines(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", id=range(20), title=TEXTS, text=TEXTS, target=NUMBERS)
    splits = read(path)
    assert splits.train.classes == ("0", "1")
    assert "labels of" in splits.notes[0] and "column 'target'" in splits.notes[0]
    assert "column 'text'" in splits.notes[1]
    assert read(path, input="title", label="target").notes == ()


def test_parquet_with_declared_classes(tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["no", "yes", "never used"])
    features = {"text": datasets.Value("string"), "label": names}
    splits = read(parquet(tmp_path / "a.parquet", features, text=TEXTS, label=NUMBERS))
    assert splits.train.classes == ("no", "yes", "never used")
    assert sorted(words(splits.train) + words(splits.test)) == sorted(TEXTS)


def test_images_in_a_table_as_the_hub_stores_them(tmp_path: Path) -> None:
    images = [{"bytes": png(10 * index), "path": None} for index in range(20)]
    typed = {"img": datasets.Image(), "label": datasets.Value("int64")}
    for features in (typed, None):  # with the hub's own types, and as a plain struct
        path = parquet(tmp_path / "a.parquet", features, img=images, label=NUMBERS)
        dataset, notes = whole(path)
        assert dataset.kind == "image" and dataset.inputs.shape == (20, 4, 4, 1)
        assert dataset.inputs[:, 0, 0, 0].tolist() == [10 * index for index in range(20)]
        assert "column 'img'" in notes[0]


def test_a_table_of_paths_of_images(tmp_path: Path) -> None:
    for index in range(4):
        (tmp_path / f"{index}.png").write_bytes(png(index))
    path = csv(tmp_path / "a.csv", "file,label", [f"{index}.png,{index % 2}" for index in range(4)])
    dataset, notes = whole(path)
    assert dataset.inputs[:, 0, 0, 0].tolist() == [0, 1, 2, 3] and "names image files" in notes[-1]
    (tmp_path / "2.png").unlink()
    with pytest.raises(DataError, match=r"row 2 of .*2\.png\): not an image"):
        whole(path)


def test_a_folder_with_its_own_splits(tmp_path: Path) -> None:
    for shard in range(2):
        parquet(tmp_path / f"train-{shard}.parquet", text=TEXTS[shard * 5 :][:5], label=NUMBERS[:5])
    parquet(tmp_path / "validation.parquet", text=TEXTS[15:], label=NUMBERS[15:])
    splits = read(tmp_path)
    assert words(splits.train) == TEXTS[:10] and words(splits.test) == TEXTS[15:]
    assert any("validation" in note and "serves as its test part" in note for note in splits.notes)
    parquet(tmp_path / "test.parquet", text=TEXTS[10:15], label=NUMBERS[10:15])
    splits = read(tmp_path)
    assert words(splits.test) == TEXTS[10:15] and splits.validation is not None
    assert words(splits.validation) == TEXTS[15:] and not any("serves as" in note for note in splits.notes)
    assert words(whole(tmp_path)[0]) == TEXTS[10:15]


def test_splits_in_folders_of_their_own_and_a_folder_without_splits(tmp_path: Path) -> None:
    for split, texts in (("train", TEXTS[:12]), ("test", TEXTS[12:])):
        (tmp_path / "both" / split).mkdir(parents=True)
        jsonl(tmp_path / "both" / split / "part.jsonl", text=texts, label=NUMBERS[: len(texts)])
    splits = read(tmp_path / "both")
    assert words(splits.train) == TEXTS[:12] and words(splits.test) == TEXTS[12:]
    (tmp_path / "one").mkdir()
    for part, texts in (("a", TEXTS[:10]), ("b", TEXTS[10:])):
        jsonl(tmp_path / "one" / f"{part}.jsonl", text=texts, label=NUMBERS[:10])
    splits = read(tmp_path / "one")
    assert sorted(words(splits.train) + words(splits.test)) == sorted(TEXTS) and len(splits.test) == 4


def test_texts_are_cut_and_it_is_reported(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", text=["abcdefgh", "abc", "abcdefghi", "a"], label=[0, 1, 0, 1])
    dataset, notes = whole(path, max_tokens=6)
    assert words(dataset) == ["abcd", "abc", "abcd", "a"] and dataset.inputs.shape == (4, 6)
    assert notes[-1] == "2 of 4 texts were cut to 6 tokens (data.max_tokens)"
    settings = DataSettings(name=str(path), max_tokens=0)
    dataset, notes = load_for_prediction(settings, 0, preprocessor(longest=5))
    assert words(dataset) == ["abc", "abc", "abc", "a"] and notes[-1].endswith("(the model's limit)")
    assert words(whole(path, max_tokens=0)[0]) == ["abcdefgh", "abc", "abcdefghi", "a"]


def test_texts_without_labels(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", text=["", *TEXTS, None, "  "])
    splits = read(path, label="")
    assert splits.train.classes == () and not splits.train.labels.any()
    assert sorted(words(splits.train) + words(splits.test)) == sorted(TEXTS) and len(splits.test) == 4
    assert splits.notes[-1] == "3 blank texts of a were left out"
    dataset, notes = whole(jsonl(tmp_path / "b.jsonl", text=TEXTS))
    assert dataset.classes == () and any("predictions only, no accuracy" in note for note in notes)


FAULTS: dict[str, tuple[dict[str, Sequence[Any]], dict[str, str], str]] = {
    "input": (
        {"text": TEXTS, "label": NUMBERS},
        {"input": "txt"},
        "unknown column 'txt', did you mean 'text'",
    ),
    "label": (
        {"text": TEXTS, "lable": NUMBERS},
        {},
        "'label', did you mean 'lable'.*set data.input and data.l",
    ),
    "named label": ({"text": TEXTS, "label": NUMBERS}, {"label": "labl"}, "'labl', did you mean 'label'"),
    "two inputs": (
        {"text": TEXTS, "body": TEXTS, "label": NUMBERS},
        {},
        "both 'text' and 'body'.*data.input",
    ),
    "no input": (
        {"a": NUMBERS, "label": NUMBERS},
        {},
        r"no column, by type or name, could be .*; set data.input to one of a$",
    ),
    "numbers as input": (
        {"a": NUMBERS, "label": NUMBERS},
        {"input": "a"},
        "column 'a' holds int64; inputs are",
    ),
    "both": ({"text": TEXTS, "label": NUMBERS}, {"input": "label"}, "both name 'label'; name two columns"),
    "empty text": (
        {"text": [*TEXTS[:7], " ", *TEXTS[8:19], ""], "label": NUMBERS},
        {},
        r"row 7 of .*a\.jsonl is an empty text \(and 1 more\); remove",
    ),
    "no label": ({"text": TEXTS, "label": [*NUMBERS[:5], None, *NUMBERS[6:]]}, {}, "row 5 of .*has no label"),
    "negative": (
        {"text": TEXTS, "label": [*NUMBERS[:19], -1]},
        {},
        "holds the label -1; labels are integers",
    ),
    "outside": ({"text": TEXTS, "label": [*NUMBERS[:19], 99]}, {}, "the label 99 in 20 samples"),
    "floats": ({"text": TEXTS, "label": [0.5 * n for n in NUMBERS]}, {}, "labels are integers from 0"),
    "lists": (
        {"text": TEXTS, "label": [[n] for n in NUMBERS]},
        {},
        "'label' holds list; labels are integers",
    ),
    "one class": ({"text": TEXTS, "label": [0] * 20}, {}, "all labels are '0'; at least two classes"),
    "too few": ({"text": TEXTS[:3], "label": [0, 1, 2]}, {}, "leaves no test sample"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line_with_the_fix(name: str, tmp_path: Path) -> None:
    columns, settings, message = FAULTS[name]
    with pytest.raises(DataError, match=message) as caught:
        read(jsonl(tmp_path / "a.jsonl", **columns), **settings)
    assert "\n" not in str(caught.value)


def test_declared_classes_are_a_bound(tmp_path: Path) -> None:
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    labels = [*NUMBERS[:19], -1]
    with pytest.raises(DataError, match=r"row 19 of .* has no label in column 'label'"):
        read(parquet(tmp_path / "a.parquet", features, text=TEXTS, label=labels))


def test_images_without_labels_are_refused(tmp_path: Path) -> None:
    images = [{"bytes": png(0), "path": None}] * 4
    with pytest.raises(DataError, match="images need labels"):
        read(parquet(tmp_path / "a.parquet", img=images, label=[0, 1, 0, 1]), label="")


def test_an_unreadable_image_names_its_row(tmp_path: Path) -> None:
    images = [{"bytes": png(0), "path": None}, {"bytes": b"no image", "path": "cat.png"}] * 2
    with pytest.raises(DataError, match=r"row 1 of .*a\.parquet \(cat\.png\): not an image that can be read"):
        read(parquet(tmp_path / "a.parquet", img=images, label=[0, 1, 0, 1]))
    images[1]["bytes"] = png(0)[:40]
    with pytest.raises(DataError, match=r"row 1 of .*not an image"):
        read(parquet(tmp_path / "a.parquet", img=images, label=[0, 1, 0, 1]))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"b\.csv: no such file; give a named dataset, an existing file"):
        read(tmp_path / "b.csv")
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(
        DataError, match=r"a\.txt: \.txt cannot be read; convert it to one of \.npz, \.parquet"
    ):
        read(tmp_path / "a.txt")
    for name in ("e.csv", "e.jsonl", "e.parquet"):
        (tmp_path / name).write_text("")
        with pytest.raises(DataError, match=rf"{name}: the file is empty; at least one sample"):
            read(tmp_path / name)
        (tmp_path / name).write_bytes(b'{"a": "\xff\n{')
        with pytest.raises(DataError, match=rf"{name}: cannot be read as .*write it again") as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)
    (tmp_path / "head.csv").write_text("text,label\n")
    with pytest.raises(DataError, match="holds no samples; at least one"):
        read(tmp_path / "head.csv")
    (tmp_path / "mixed").mkdir()
    csv(tmp_path / "mixed" / "a.csv", "text,label", ["a,0"])
    jsonl(tmp_path / "mixed" / "a.jsonl", text=["a"], label=[0])
    with pytest.raises(DataError, match=r"holds \.csv and \.jsonl files; keep one kind"):
        read(tmp_path / "mixed")


def test_splits_with_different_columns(tmp_path: Path) -> None:
    csv(tmp_path / "train.csv", "text,label", ["a,0", "b,1"])
    csv(tmp_path / "test.csv", "text,other", ["a,0", "b,1"])
    with pytest.raises(DataError, match=r"lacks the column 'label'|cannot be read as csv"):
        read(tmp_path)


def test_nothing_is_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    before = np.array(NUMBERS)
    assert read(jsonl(tmp_path / "a.jsonl", text=TEXTS, label=before.tolist())).train
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
