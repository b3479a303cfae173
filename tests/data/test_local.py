"""Local ``.npz`` files: what is read, and one clear line for everything that cannot be."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sflam.data.local import read_npz
from sflam.errors import DataError

GREY = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
TOKENS = np.array([[5, 6, 0], [7, 0, 0], [1, 2, 3], [9, 9, 0]])
LABELS = np.array([0, 1, 0, 2])


def write(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "file.npz", **arrays)
    return folder / "file.npz"


def test_grey_images(tmp_path: Path) -> None:
    dataset, notes = read_npz(write(tmp_path, image=GREY, label=LABELS), "image")
    assert dataset.kind == "image" and notes == ()
    assert np.array_equal(dataset.inputs[..., 0], GREY) and dataset.inputs.shape == (4, 5, 6, 1)
    assert dataset.labels.dtype == np.int64 and dataset.classes == ("0", "1", "2")


def test_floats_in_0_to_1_become_bytes_and_it_is_reported(tmp_path: Path) -> None:
    dataset, notes = read_npz(write(tmp_path, image=GREY / 255, label=LABELS), "image")
    assert np.array_equal(dataset.inputs[..., 0], GREY)
    assert notes == ("pixels of 'image' lie in 0..1 and were multiplied by 255",)


def test_integers_of_another_width_are_kept(tmp_path: Path) -> None:
    dataset, notes = read_npz(write(tmp_path, image=GREY.astype(np.int32), label=LABELS), "image")
    assert np.array_equal(dataset.inputs[..., 0], GREY) and notes == ()


def test_class_names_become_labels(tmp_path: Path) -> None:
    dataset, _ = read_npz(write(tmp_path, image=GREY, label=np.array(["owl", "cat", "owl", "dog"])))
    assert dataset.classes == ("cat", "dog", "owl") and dataset.labels.tolist() == [2, 0, 2, 1]


def test_tokens_with_lengths(tmp_path: Path) -> None:
    path = write(tmp_path, input_ids=TOKENS, lengths=np.array([2, 1, 3, 2]), label=LABELS)
    dataset, notes = read_npz(path)
    assert dataset.kind == "text" and dataset.inputs.dtype == np.int64
    assert dataset.lengths is not None and dataset.lengths.dtype == np.int32
    assert dataset.lengths.tolist() == [2, 1, 3, 2]
    assert dataset.take(np.array([2])).lengths == [3]
    assert len(notes) == 1 and "'input_ids'" in notes[0]


def test_tokens_without_lengths_are_all_valid_and_it_is_reported(tmp_path: Path) -> None:
    dataset, notes = read_npz(write(tmp_path, ids=TOKENS, label=LABELS), "ids")
    assert dataset.lengths is not None and dataset.lengths.tolist() == [3] * 4
    assert "no 'lengths'" in notes[0]


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown label": ({"image": GREY, "labels": LABELS}, "unknown column 'label', did you mean 'labels'"),
    "two candidates": ({"image": GREY, "images": GREY, "label": LABELS}, "both 'image' and 'images'"),
    "no candidate": ({"stuff": GREY, "label": LABELS}, "set data.input to one of label, stuff"),
    "flat images": ({"image": GREY.reshape(4, 30), "label": LABELS}, r"\[N, H, W, C\]"),
    "channels first": ({"image": np.zeros((4, 3, 8, 8), np.uint8), "label": LABELS}, "channels come last"),
    "empty": ({"image": GREY[:0], "label": LABELS[:0]}, "empty"),
    "lengths differ": ({"image": GREY, "label": LABELS[:3]}, r"shape \(3,\) for 4 inputs"),
    "negative label": ({"image": GREY, "label": LABELS - 1}, "holds the label -1"),
    "huge label": ({"image": GREY, "label": LABELS * 1000}, "label 2000 in 4 samples"),
    "float labels": ({"image": GREY, "label": LABELS / 2}, "labels are integers"),
    "not finite": ({"image": np.full((4, 5, 5), np.nan), "label": LABELS}, "NaN"),
    "normalised": ({"image": GREY - 100.0, "label": LABELS}, "undo any normalisation"),
    "complex": ({"image": GREY * 1j, "label": LABELS}, "uint8 0..255 or float 0..1"),
    "negative token": ({"input_ids": TOKENS - 1, "label": LABELS}, "token id -1"),
    "float token": ({"input_ids": TOKENS * 1.0, "label": LABELS}, "token ids are integers"),
    "long length": (
        {"input_ids": TOKENS, "lengths": np.array([1, 2, 3, 4]), "label": LABELS},
        r"each must be in 1\.\.3",
    ),
    "lengths' shape": ({"input_ids": TOKENS, "lengths": np.array([1]), "label": LABELS}, "hold 4 integers"),
    "objects": ({"image": GREY, "label": np.array([{}, 1, 2, 3], dtype=object)}, "Python objects"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line_with_the_fix(name: str, tmp_path: Path) -> None:
    arrays, message = FAULTS[name]
    with pytest.raises(DataError, match=message) as caught:
        read_npz(write(tmp_path, **arrays))
    assert "\n" not in str(caught.value) and "file.npz" in str(caught.value)


def test_the_inputs_are_not_the_labels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="name two arrays"):
        read_npz(write(tmp_path, image=GREY, label=LABELS), "label")


def test_files_that_are_not_npz(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_npz(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match=r"not an \.npz file"):
        read_npz(tmp_path / "text.npz")
    with (tmp_path / "bare.npz").open("wb") as file:
        np.save(file, GREY)
    with pytest.raises(DataError, match=r"not an \.npz file"):
        read_npz(tmp_path / "bare.npz")
    whole = write(tmp_path, image=GREY, label=LABELS).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"not an \.npz file"):
        read_npz(tmp_path / "cut.npz")
    damaged = whole.replace(GREY.tobytes()[:40], GREY.tobytes()[40:80])
    (tmp_path / "damaged.npz").write_bytes(damaged)
    with pytest.raises(DataError, match="cannot be read"):
        read_npz(tmp_path / "damaged.npz")


def test_without_labels_there_is_something_to_predict(tmp_path: Path) -> None:
    dataset, notes = read_npz(write(tmp_path, image=GREY), "image", labelled=False)
    assert len(dataset) == 4 and dataset.classes == ()
    assert notes == ("file.npz has no array 'label': predictions only, no accuracy",)
    dataset, notes = read_npz(write(tmp_path, image=GREY, label=LABELS), "image", labelled=False)
    assert dataset.labels.tolist() == LABELS.tolist() and notes == ()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("mapped", [False, True])
def test_an_array_that_says_it_is_larger_than_its_file_takes_no_memory(
    tmp_path: Path, compressed: bool, mapped: bool
) -> None:
    header = io.BytesIO()
    described = {"descr": "|u1", "fortran_order": False, "shape": (10_000_000, 8192, 8192)}
    np.lib.format.write_array_header_1_0(header, described)  # 610 TiB
    path = tmp_path / "huge.npz"
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("image.npy", header.getvalue() + bytes(10))
    with pytest.raises(DataError, match=r"huge\.npz: .*; (save plain numeric arrays|write it again)"):
        read_npz(path, mapped=mapped)
