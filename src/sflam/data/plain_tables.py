"""CSV and JSON lines by the standard library, for a device without the ``datasets`` library: the same rows."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sflam.errors import DataError
from sflam.files import from_json

READABLE = (".csv", ".jsonl")
_INT, _FLOAT = (
    re.compile(r"\s*[+-]?\d{1,18}\s*", re.A),
    re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.A),
)
_BOOLS = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}
_TYPES = {int: "int64", bool: "bool", float: "float64", str: "string"}


@dataclass(frozen=True)
class _Feature:
    dtype: str


@dataclass(frozen=True)
class _Column:
    values: list[Any]

    def to_pylist(self) -> list[Any]:
        return self.values


class PlainTable:
    """As much of a table of the ``datasets`` library as is used here: names, types and values of columns."""

    def __init__(self, columns: Mapping[str, list[Any]]) -> None:
        self.columns = columns
        self.features = {name: _Feature(_type(values)) for name, values in columns.items()}

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    @property
    def column_names(self) -> list[str]:
        """The names of the columns."""
        return list(self.columns)

    @property
    def data(self) -> PlainTable:
        """What holds the columns."""
        return self

    def column(self, name: str) -> _Column:
        """Return a column."""
        return _Column(self.columns[name])


def read_plain(files: Mapping[str, list[Path]], where: Path) -> dict[str, PlainTable]:
    """Return split -> table of local files of one kind.

    Raises:
        DataError: a file is empty, damaged or of a kind that needs a library.
    """
    suffix = next(iter(files.values()))[0].suffix.lower()
    if suffix not in READABLE:
        raise DataError(
            f"{where}: a device without the datasets library reads {', '.join(READABLE)}, .npz and folders of images, "
            f"no {suffix} files; convert it"
        )
    read = _csv if suffix == ".csv" else _jsonl
    return {split: _joined([read(path) for path in paths], where) for split, paths in files.items()}


def _csv(path: Path) -> dict[str, list[Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file, strict=True) if row]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as csv ({error}); write it again") from error
    if len(rows) < 2:
        raise DataError(f"{path}: holds no samples; at least one is needed")
    heading, *rows = rows
    for number, row in enumerate(rows):
        if len(row) != len(heading):
            raise DataError(
                f"{path}: cannot be read as csv (row {number} has {len(row)} cells, its heading {len(heading)}); "
                "write it again"
            )
    return {name: _cells([row[at] for row in rows]) for at, name in enumerate(heading)}


def _cells(cells: list[str]) -> list[Any]:
    """Return a column as whole numbers, numbers, truth values or texts, whatever all of its cells are."""
    if all(_INT.fullmatch(cell) for cell in cells):
        return [int(cell) for cell in cells]
    if all(_FLOAT.fullmatch(cell) for cell in cells):
        return [float(cell) for cell in cells]
    if all(cell in _BOOLS for cell in cells):
        return [_BOOLS[cell] for cell in cells]
    return cells


def _jsonl(path: Path) -> dict[str, list[Any]]:
    rows = []
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file):
                if line.strip():
                    rows.append(from_json(line))
                    if not isinstance(rows[-1], dict):
                        raise ValueError(f"line {number + 1} is no object")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as jsonl ({error}); write it again") from error
    if not rows:
        raise DataError(f"{path}: holds no samples; at least one is needed")
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


def _joined(parts: Sequence[Mapping[str, list[Any]]], where: Path) -> PlainTable:
    first = parts[0]
    for part in parts[1:]:
        if set(part) != set(first):
            raise DataError(f"{where}: its files have different columns; give all of them the same")
    return PlainTable({name: [value for part in parts for value in part[name]] for name in first})


def _type(values: Sequence[Any]) -> str:
    """Return the type of a column; of numbers and whole numbers together, numbers."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return "float64"
    return _TYPES.get(kinds.pop(), "other") if len(kinds) == 1 else "other"
