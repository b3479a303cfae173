"""A local ``.npz`` file as a dataset: images with labels, or token ids with labels.

    np.savez("my.npz", image=uint8 [N, H, W] or [N, H, W, C], label=[N])
    np.savez("my.npz", input_ids=int [N, T], lengths=int [N], label=[N])

Nothing in the file is ever unpickled.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.data.dataset import Dataset, Kind
from sflam.data.groups import origin_of
from sflam.data.labels import numbered
from sflam.data.mapped import extremes, mapped_arrays, read_arrays
from sflam.errors import DataError, unknown

IMAGE_COLUMNS = ("pixel_values", "image", "images", "pixels")
TEXT_COLUMNS = ("input_ids", "tokens")
CHANNELS = (1, 3)

Array = NDArray[Any]


def read_npz(
    path: Path,
    column: str = "",
    label: str = "label",
    *,
    labelled: bool = True,
    group: str = "",
    mapped: bool = False,
) -> tuple[Dataset, tuple[str, ...]]:
    """Return the dataset in the file, and notes on what was guessed or converted.

    Args:
        path: the ``.npz`` file.
        column: the array of inputs; empty takes the one whose name is customary for inputs.
        label: the array of labels: integers from 0, or class names; empty: there are none.
        labelled: whether that array must be there, and numbers name all classes up to the largest. Otherwise the
            classes are those that occur; without the array every label is 0 and there are none.
        group: the array that says whose each sample is; empty: not asked for.
        mapped: leave arrays in the file, where it is not compressed and they have the type that is wanted.

    Raises:
        DataError: the file is missing or not an npz, a column is unknown, or an array does not fit.
    """
    arrays = _arrays(path, mapped)
    notes = []
    # How the caller names the arrays: in a job file, or on predict's command line.
    by_input, by_label = ("data.input", "data.label") if labelled else ("--input", "--label")
    if not column:
        column = _guess(path, arrays, by_input)
        notes.append(f"inputs of {path.name} are taken from its array {column!r} ({by_input} was empty)")
    known = bool(label) and (labelled or label in arrays)
    for key in (column, label) if known else (column,):
        if key not in arrays:
            raise DataError(f"{path}: {unknown('column', key, arrays)}; set {by_input} and {by_label}")
    if column == label:
        raise DataError(f"{path}: {by_input} and {by_label} both name {column!r}; name two arrays")
    inputs = arrays[column]
    if not inputs.size:
        raise DataError(f"{path}: {column!r} is empty (shape {inputs.shape}); at least one sample is needed")
    kind = _kind(path, column, inputs)
    lengths = None
    if kind == "image":
        inputs = _images(path, column, inputs, notes)
    else:
        inputs = _tokens(path, column, inputs)
        lengths = _lengths(path, arrays.get("lengths"), inputs, notes)
    labels, classes = np.zeros(len(inputs), dtype=np.int64), tuple[str, ...]()
    if known:
        labels, classes = numbered(path, label, arrays[label], len(inputs), every=labelled)
    elif not labelled:
        notes.append(f"{path.name} has no array {label!r}: predictions only, no accuracy")
    elif kind == "image":
        raise DataError(
            f"{path}: data.label is empty, but images need labels; name the array that holds them"
        )
    dataset = Dataset(
        name=path.stem,
        kind=kind,
        inputs=inputs,
        lengths=lengths,
        labels=labels,
        classes=classes,
        origin=origin_of(len(inputs), len(inputs), _groups(path, group, arrays, len(inputs))),
    )
    return dataset, tuple(notes)


def _groups(path: Path, group: str, arrays: dict[str, Array], count: int) -> list[Any]:
    """Return whose each sample is; nothing where that was not asked for."""
    if not group:
        return []
    if group not in arrays:
        raise DataError(f"{path}: {unknown('array', group, arrays)}; set data.column")
    values = arrays[group]
    if values.shape != (count,) or values.dtype.kind not in "biuU":
        raise DataError(
            f"{path}: {group!r} is {values.dtype} {values.shape}; data.column names an array of {count} whole numbers "
            "or names"
        )
    return list(values.tolist())


def _arrays(path: Path, mapped: bool) -> dict[str, Array]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a named dataset or the path of an existing .npz file")
    # An .npy file would come back as a bare array, and any other file as an attempt to unpickle it.
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: not an .npz file; write one with numpy.savez(path, image=..., label=...)")
    try:
        arrays = mapped_arrays(path) if mapped else None
        if arrays is None:
            arrays = read_arrays(path)
    except (OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read ({error}); write it again with numpy.savez") from error
    except ValueError as error:
        raise DataError(
            f"{path}: holds Python objects or a damaged array ({error}); save plain numeric arrays"
        ) from error
    foreign = [key for key, value in arrays.items() if not isinstance(value, np.ndarray)]
    if foreign or not arrays:
        raise DataError(f"{path}: not an .npz file (no arrays in it); write one with numpy.savez")
    return arrays


def _guess(path: Path, arrays: dict[str, Array], by: str) -> str:
    known = [key for key in (*IMAGE_COLUMNS, *TEXT_COLUMNS) if key in arrays]
    if len(known) == 1:
        return known[0]
    found = f"both {' and '.join(map(repr, known))}" if known else "no array with a customary name"
    raise DataError(f"{path}: {found} could be the inputs; set {by} to one of {', '.join(sorted(arrays))}")


def _kind(path: Path, column: str, inputs: Array) -> Kind:
    if inputs.ndim in (3, 4) and column not in TEXT_COLUMNS:
        return "image"
    if inputs.ndim == 2 and column not in IMAGE_COLUMNS:
        return "text"
    raise DataError(
        f"{path}: {column!r} has shape {inputs.shape}; "
        "images are [N, H, W] or [N, H, W, C], token ids are [N, T]"
    )


def _images(path: Path, column: str, inputs: Array, notes: list[str]) -> NDArray[np.uint8]:
    if inputs.ndim == 3:
        inputs = inputs[..., np.newaxis]
    if inputs.shape[-1] not in CHANNELS:
        raise DataError(
            f"{path}: {column!r} has shape {inputs.shape}; "
            "channels come last and are 1 (grey) or 3 (RGB): [N, H, W, C]"
        )
    if inputs.dtype == np.uint8:
        return inputs
    if inputs.dtype.kind not in "biuf":
        raise DataError(f"{path}: {column!r} holds {inputs.dtype}; images are uint8 0..255 or float 0..1")
    if not np.isfinite(inputs).all():
        raise DataError(f"{path}: {column!r} holds NaN or infinite pixels; remove those images")
    low, high = inputs.min(), inputs.max()
    if low < 0 or high > 255:
        raise DataError(
            f"{path}: {column!r} holds pixels from {low:g} to {high:g}; "
            "images are uint8 0..255 or float 0..1: undo any normalisation before saving"
        )
    if inputs.dtype.kind in "bf" and high <= 1:
        notes.append(f"pixels of {column!r} lie in 0..1 and were multiplied by 255")
        inputs = inputs * np.float32(255)
    return np.rint(inputs).astype(np.uint8)


def _tokens(path: Path, column: str, inputs: Array) -> NDArray[np.int64]:
    if inputs.dtype.kind not in "iu":
        raise DataError(f"{path}: {column!r} holds {inputs.dtype}; token ids are integers")
    least, most = extremes(inputs)
    if least < 0 or most > np.iinfo(np.int64).max:
        raise DataError(f"{path}: {column!r} holds token id {least}; pad with a valid id and use lengths")
    return inputs.astype(np.int64, copy=False)


def _lengths(
    path: Path, lengths: Array | None, inputs: NDArray[np.int64], notes: list[str]
) -> NDArray[np.int32]:
    count, width = inputs.shape
    if lengths is None:
        notes.append(f"{path.name} has no 'lengths': all {width} tokens of every row count as valid")
        return np.full(count, width, dtype=np.int32)
    if lengths.shape != (count,) or lengths.dtype.kind not in "iu":
        raise DataError(
            f"{path}: 'lengths' is {lengths.dtype} {lengths.shape}; it must hold {count} integers"
        )
    if lengths.min() < 1 or lengths.max() > width:
        raise DataError(
            f"{path}: 'lengths' runs from {lengths.min()} to {lengths.max()}; each must be in 1..{width}"
        )
    return np.array(lengths, dtype=np.int32)
