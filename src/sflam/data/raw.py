"""Samples as a source stores them (texts, stored images, labels of any kind), and what they become: datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sflam.data.dataset import Dataset, Kind, Origin
from sflam.data.image_cache import StoredImages, images_of
from sflam.data.instructions import answered
from sflam.data.labels import Numbered, numbered
from sflam.data.preprocessor import Preprocessor
from sflam.data.texts import tokenized
from sflam.errors import DataError


@dataclass(frozen=True, eq=False)
class Raw:
    """N samples before any model is involved, one split after the other.

    Attributes:
        name: what to call the data in reports.
        where: what to call it in errors: a path, or a hub name.
        kind: ``image`` or ``text``.
        inputs: N texts, or N stored images as :func:`sflam.data.decode.decoded` takes them.
        labels: N integers or class names, or None.
        sizes: split -> its samples, in order; a split without a name is to be divided.
        column: the column of the inputs.
        label: the column of the labels.
        names: class names that the source declares.
        origin: of the samples; None where they are only predicted.
        answers: N texts that follow the prompts in ``inputs``; None where these are whole texts.
    """

    name: str
    where: str
    kind: Kind
    inputs: Sequence[Any]
    labels: Sequence[Any] | None
    sizes: Mapping[str, int]
    column: str
    label: str
    names: tuple[str, ...] = ()
    origin: Origin | None = None
    answers: Sequence[Any] | None = None

    def place(self, index: int) -> str:
        """Return what to call a sample in an error: its file, or its row, counted from 0 in its split."""
        if isinstance(self.inputs[index], Path):
            return str(self.inputs[index])
        for split, size in self.sizes.items():
            if index < size:
                return f"row {index} of {self.where}" + (f" ({split})" if split else "")
            index -= size
        raise AssertionError("unreachable")


def dataset_of(
    raw: Raw, preprocessor: Preprocessor, *, max_tokens: int, every: bool, notes: list[str]
) -> Dataset:
    """Return the samples as a model reads them; what was done is added to ``notes``.

    Args:
        raw: the samples.
        preprocessor: the model's tokenizer and image size.
        max_tokens: see :func:`sflam.data.texts.tokenized`.
        every: see :func:`sflam.data.labels.numbered`.

    Raises:
        DataError: an input or a label cannot be used, which is named.
    """
    if not raw.inputs:
        raise DataError(f"{raw.where}: holds no samples; at least one is needed")
    labels, classes = np.zeros(len(raw.inputs), dtype=np.int64), tuple[str, ...]()
    if raw.labels is not None:
        labels, classes = labels_of(raw, raw.labels, every)
    if raw.kind == "image":
        images = images_of(StoredImages(raw.inputs, raw.place, raw.where), preprocessor.image(), notes)
        return Dataset(raw.name, "image", images, None, labels, classes, raw.column, raw.origin)
    if raw.answers is not None:
        ids, lengths, prompts = answered(raw.inputs, raw.answers, raw.place, preprocessor, max_tokens, notes)
        return Dataset(raw.name, "text", ids, lengths, labels, classes, raw.column, raw.origin, prompts)
    ids, lengths = tokenized(raw.inputs, raw.place, preprocessor, max_tokens, notes)
    return Dataset(raw.name, "text", ids, lengths, labels, classes, raw.column, raw.origin)


def labels_of(raw: Raw, labels: Sequence[Any], every: bool) -> Numbered:
    """Return labels of a source as numbers, and the names of their classes; ``every`` as in :func:`dataset_of`."""
    # -1 is how the hub writes that a label is hidden.
    missing = [
        i for i, label in enumerate(labels) if label is None or label == "" or (raw.names and label == -1)
    ]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise DataError(
            f"{raw.place(missing[0])} has no label in column {raw.label!r}{more}; remove such rows"
        )
    kinds = {type(label) for label in labels}
    if len(kinds) > 1 or not kinds <= {int, bool, str, float}:
        types = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise DataError(
            f"{raw.where}: {raw.label!r} holds {types}; labels are integers from 0, or class names"
        )
    return numbered(raw.where, raw.label, np.array(labels), len(raw.inputs), every=every, names=raw.names)
