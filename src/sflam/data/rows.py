"""Tables to samples: which splits serve as which part, which columns are read, which rows are left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.data.columns import Columns, choose
from sflam.data.dataset import Dataset
from sflam.data.decode import SUFFIXES
from sflam.data.groups import column_of, origin_of
from sflam.data.raw import Raw
from sflam.data.settings import DataSettings
from sflam.data.tables import TESTS, Table, held_out_notes
from sflam.errors import DataError, unknown


def of_tables(
    tables: Mapping[str, Table],
    settings: DataSettings,
    name: str,
    notes: list[str],
    *,
    where: str,
    labelled: bool,
) -> Raw:
    """Return the samples of the splits to use: train with those held out, or the only one there is.

    Args:
        tables: split -> table.
        settings: the names of the columns.
        name: what to call the data in reports.
        notes: what was guessed is added here.
        where: what to name in errors.
        labelled: see :func:`sflam.data.columns.choose`.

    Raises:
        DataError: the splits or the columns do not fit.
    """
    if "train" not in tables and len(tables) > 1:
        raise DataError(f"{where}: has the splits {', '.join(sorted(tables))}, but none is called train")
    first = tables.get("train", next(iter(tables.values())))
    group = column_of(settings) if labelled else ""
    answer = settings.answer if labelled else ""
    columns = choose(
        where,
        first,
        settings.input,
        settings.label,
        labelled=labelled,
        notes=notes,
        group=group,
        answer=answer,
    )
    tables = _splits(tables, columns, name, notes)
    inputs: list[Any] = []
    labels: list[Any] = []
    groups: list[Any] = []
    answers: list[Any] = []
    for split, table in tables.items():
        if not len(table):
            raise DataError(f"{where}: {split or 'the table'} holds no samples; at least one is needed")
        lacking = {columns.input, columns.label, answer or None} - {None, *table.column_names}
        if lacking:
            raise DataError(f"{where}: its split {split} lacks the column {min(map(str, lacking))!r}")
        # As stored: images are decoded by sflam, which names the one that cannot be.
        inputs += table.data.column(columns.input).to_pylist()
        labels += table.data.column(columns.label).to_pylist() if columns.label else []
        answers += table.data.column(answer).to_pylist() if answer else []
        groups += values_of(table, group, where, needed=not groups) if group else []
    return Raw(
        name=name,
        where=where,
        kind=columns.kind,
        inputs=inputs,
        labels=labels if columns.label else None,
        sizes={split: len(table) for split, table in tables.items()},
        column=columns.input,
        label=columns.label or "",
        names=columns.names,
        origin=origin_of(len(inputs), len(next(iter(tables.values()))), groups) if labelled else None,
        answers=answers if answer else None,
    )


def without_blank_texts(raw: Raw, notes: list[str]) -> Raw:
    """Return the samples without blank texts, which a corpus for a language model has between its paragraphs."""
    given = [raw.inputs] if raw.answers is None else [raw.inputs, raw.answers]
    kept = [
        index
        for index in range(len(raw.inputs))
        if all(texts[index] and str(texts[index]).strip() for texts in given)
    ]
    if len(kept) == len(raw.inputs):
        return raw
    what = "texts" if raw.answers is None else "prompts or answers"
    notes.append(f"{len(raw.inputs) - len(kept)} blank {what} of {raw.name} were left out")
    origin = None if raw.origin is None else raw.origin.take(np.array(kept, dtype=np.int64))
    inputs = [raw.inputs[index] for index in kept]
    answers = None if raw.answers is None else [raw.answers[index] for index in kept]
    return replace(raw, inputs=inputs, sizes=_sizes(raw.sizes, kept), origin=origin, answers=answers)


def without_single_tokens(
    texts: Dataset, sizes: Mapping[str, int], notes: list[str]
) -> tuple[Dataset, dict[str, int]]:
    """Return texts of two tokens or more, and split -> its texts: a single one has no next token to learn from."""
    assert texts.lengths is not None
    least = np.int32(1) if texts.prompts is None else np.maximum(texts.prompts, 1)
    kept = np.flatnonzero(texts.lengths > least)
    if len(kept) == len(texts):
        return texts, dict(sizes)
    why = "are a single token" if texts.prompts is None else "have prompts too long for any of their answer"
    notes.append(f"{len(texts) - len(kept)} texts of {texts.name} {why} and were left out")
    return texts.take(kept), _sizes(sizes, kept)


def paths_as_images(raw: Raw, folder: Path, notes: list[str]) -> Raw:
    """Return the samples with texts that all name image files, beside the table, as those images."""
    texts = raw.inputs
    if raw.kind != "text" or not all(
        isinstance(text, str) and text.lower().endswith(SUFFIXES) for text in texts
    ):
        return raw
    notes.append(f"column {raw.column!r} of {raw.name} names image files")
    return replace(raw, kind="image", inputs=[{"path": str(folder / text)} for text in texts])


def values_of(table: Table, column: str, where: str, *, needed: bool) -> list[Any]:
    """Return the values of a column, all missing where the table has no such column and does not need it."""
    if column in table.column_names:
        return list(table.data.column(column).to_pylist())
    if needed:
        raise DataError(f"{where}: {unknown('column', column, table.column_names)}; set data.column")
    return [None] * len(table)


def _sizes(sizes: Mapping[str, int], kept: Sequence[int] | NDArray[np.int64]) -> dict[str, int]:
    """Return split -> its samples among those at ``kept``, in order."""
    ends = np.cumsum(list(sizes.values()))
    counts = np.bincount(np.searchsorted(ends, kept, side="right"), minlength=len(ends))
    return {split: int(count) for split, count in zip(sizes, counts, strict=True)}


def _splits(tables: Mapping[str, Table], columns: Columns, name: str, notes: list[str]) -> dict[str, Table]:
    """Return the training table and, where there are any with labels, a test and a validation one."""
    if "train" not in tables:
        return dict(tables)
    hidden = [split for split in TESTS if split in tables and _is_hidden(tables[split], columns)]
    held = [split for split in TESTS if split in tables and split not in hidden][:2]
    used = {split: tables[split] for split in ("train", *held)}
    if hidden:
        notes.append(f"the labels of {name} ({hidden[0]}) are hidden: it is not used")
    notes += held_out_notes(name, held)
    left = sorted(set(tables) - set(used) - set(hidden))
    if left:
        notes.append(f"{name} ({', '.join(left)}) is not used")
    return used


def _is_hidden(table: Table, columns: Columns) -> bool:
    """Return whether all labels are -1, as the hub writes those of a contest."""
    if not columns.names or columns.label not in table.column_names or not len(table):
        return False
    return all(label == -1 for label in table.data.column(columns.label).to_pylist())
