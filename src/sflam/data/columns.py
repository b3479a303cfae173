"""Which column of a table holds the inputs, which the labels: named, or guessed from types and customary names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sflam.data.settings import DataSettings
from sflam.data.tables import Table
from sflam.errors import DataError, unknown

INPUTS = {
    "image": ("image", "img", "images", "picture", "photo"),
    "text": ("text", "sentence", "content", "review", "document", "body"),
}
"""Kind -> customary names of a column of inputs."""

LABELS = ("label", "labels", "target", "class", "category", "sentiment", "fine_label", "y")
"""Customary names of a column of labels."""

Type = Literal["image", "text", "bytes", "number", "other"]


@dataclass(frozen=True)
class Columns:
    """What a table's columns are for.

    Attributes:
        input: the column of the inputs.
        label: the column of the labels; None without labels.
        kind: the type of the inputs: image, or text (which may turn out to be paths of images).
        names: the class names that the table declares.
    """

    input: str
    label: str | None
    kind: Literal["image", "text"]
    names: tuple[str, ...] = ()


def choose(
    where: object,
    table: Table,
    column: str,
    label: str,
    *,
    labelled: bool,
    notes: list[str],
    group: str = "",
    answer: str = "",
) -> Columns:
    """Return which columns to read; what was guessed is added to ``notes``.

    Args:
        where: what to name in errors.
        table: the table.
        column: the column of inputs; empty guesses.
        label: the column of labels; empty: there are none. Another customary name is taken for the default.
        labelled: whether labels must be there, when ``label`` names them. Otherwise they are optional.
        group: the column that says whose a sample is, which is never guessed to be the inputs.
        answer: the column of answers to prompts, which never is either; empty: there are none.

    Raises:
        DataError: a column is unknown, cannot be guessed, or holds what it cannot hold.
    """
    types = {name: type_of(feature) for name, feature in table.features.items()}
    by_input, by_label = ("data.input", "data.label") if labelled else ("--input", "--label")
    if column and column not in types:
        raise DataError(f"{where}: {unknown('column', column, types)}; set {by_input} and {by_label}")
    if answer and (answer not in types or types[answer] != "text" or answer == column):
        raise DataError(
            f"{where}: data.answer is {answer!r}; name a column of texts beside data.input, of "
            f"{', '.join(sorted(types))}"
        )
    found: str | None = label or None
    if label and label not in types:
        known = (
            [name for name in LABELS if name in types and name != column]
            if label == DataSettings.label
            else []
        )
        found = known[0] if len(known) == 1 else None
        if found:
            notes.append(f"labels of {where} are taken from its column {found!r} (it has no {label!r})")
        elif labelled:
            raise DataError(
                f'{where}: {unknown("column", label, types)}; set {by_input} and {by_label} ("" trains a language '
                "model on texts without labels)"
            )
        else:
            notes.append(f"{where} has no column {label!r}: predictions only, no accuracy")
    if not column:
        column = _guess(
            where,
            {name: kind for name, kind in types.items() if name not in (found, group, answer)},
            by_input,
        )
        notes.append(f"inputs of {where} are taken from its column {column!r} ({by_input} was empty)")
    if column == found:
        raise DataError(f"{where}: {by_input} and {by_label} both name {column!r}; name two columns")
    kind = types[column]
    if kind not in ("image", "bytes", "text"):
        raise DataError(
            f"{where}: column {column!r} holds {_described(table.features[column])}; inputs are texts or images: set "
            f"{by_input}"
        )
    names = tuple(getattr(table.features[found], "names", ()) or ()) if found else ()
    return Columns(column, found, "text" if kind == "text" else "image", names)


def type_of(feature: Any) -> Type:
    """Return what a feature of the ``datasets`` library holds."""
    if type(feature).__name__ == "Image" or (isinstance(feature, Mapping) and "bytes" in feature):
        return "image"
    dtype = str(getattr(feature, "dtype", "other"))
    if dtype in ("string", "large_string", "string_view"):
        return "text"
    if "binary" in dtype:
        return "bytes"
    return "number" if dtype.startswith(("int", "uint", "bool", "float")) else "other"


def _guess(where: object, types: Mapping[str, Type], by: str) -> str:
    """Return the one column that can be the inputs: by type, then by customary name."""
    images = [name for name, kind in types.items() if kind == "image"]
    able = images or [name for name, kind in types.items() if kind in ("text", "bytes")]
    if len(able) != 1:
        able = [name for name in able if name in INPUTS["image"] + INPUTS["text"]]
    if len(able) == 1:
        return able[0]
    several = f"both {' and '.join(map(repr, able))}" if able else "no column, by type or name,"
    raise DataError(f"{where}: {several} could be the inputs; set {by} to one of {', '.join(sorted(types))}")


def _described(feature: Any) -> str:
    return str(getattr(feature, "dtype", type(feature).__name__))
