"""Whose each sample is: the column of a source that ``data.column`` names. N samples."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sflam.data.dataset import Origin
from sflam.data.settings import DataSettings
from sflam.errors import DataError, unknown

METADATA = "metadata.csv"
"""What says more about the images of a folder: a row per image, whose path is in ``file_name``; as on the hub."""


def column_of(settings: DataSettings) -> str:
    """Return the column to read beside inputs and labels; "" where samples are not shared out by one."""
    return settings.column if settings.partition == "column" else ""


def origin_of(count: int, stored: int, values: Sequence[Any] = ()) -> Origin:
    """Return the origin of all samples of a source, with the values of a column where there are any.

    A value that is None, NaN or empty counts as missing.
    """
    groups = None
    if len(values):
        missing = [value is None or value == "" or value != value for value in values]
        groups = np.array(
            ["" if gone else str(value) for gone, value in zip(missing, values, strict=True)], np.str_
        )
    return Origin(np.arange(count), stored, groups)


def describe_images(files: Mapping[str, Sequence[Path]], label: str) -> bool:
    """Return whether the tables of a folder are ``metadata.csv`` alone, without labels: its folders are the classes."""
    paths = [path for of_split in files.values() for path in of_split]
    if any(path.name != METADATA for path in paths):
        return False
    return all("file_name" in (names := _header(path)) and label not in names for path in paths)


def of_images(column: str, images: Sequence[Path], folder: Path) -> list[str]:
    """Return the value of each image of a folder in ``metadata.csv``, there or in a folder of its training images.

    Raises:
        DataError: there is no such file, or it lacks the column or an image.
    """
    found: dict[Path, str] = {}
    files = [path for path in (folder / METADATA, folder / "train" / METADATA) if path.is_file()]
    if not files:
        raise DataError(
            f"{folder}: data.column = {column!r} needs {folder / METADATA} with the columns file_name and {column}"
        )
    for path in files:
        found |= {path.parent / name: value for name, value in _rows(path, column)}
    values = [found.get(image, "") for image in images]
    train = [number for number, image in enumerate(images) if _is_trained_on(image, folder)]
    if lost := [images[number] for number in train if not values[number]]:
        raise DataError(f"{files[0]}: has no {column} of {lost[0]} ({len(lost)} in all); add its row")
    return values


def _is_trained_on(image: Path, folder: Path) -> bool:
    """Return whether an image is in the training part: in ``train``, or of a folder that is not divided."""
    inside = image.relative_to(folder).parts
    return len(inside) < 3 or inside[0] == "train"


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return next(csv.reader(file), [])
    except (OSError, UnicodeError, csv.Error):
        return []  # not readable as a table either, where it is reported


def _rows(path: Path, column: str) -> list[tuple[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file)
            names = table.fieldnames or []
            for needed in ("file_name", column):
                if needed not in names:
                    raise DataError(f"{path}: {unknown('column', needed, names)}")
            return [(str(row["file_name"]), (row[column] or "").strip()) for row in table]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as csv ({error}); write it again") from error
