"""What a dataset is in sflam: frozen arrays, one row per sample, and held-out parts.

N samples, H x W pixels, C channels, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["image", "text"]


@dataclass(frozen=True, eq=False)
class Origin:
    """Where samples come from.

    Attributes:
        rows: int64 [N], their rows in the source, counted from 0 as stored; those of a training part come first.
        stored: rows of the source's training part, or of the whole source where it has none.
        groups: str [N], their values of ``data.column``, "" where one is missing; None where none was asked for.
    """

    rows: NDArray[np.int64]
    stored: int
    groups: NDArray[np.str_] | None = None

    def take(self, indices: NDArray[np.integer[Any]] | slice) -> Origin:
        """Return the origin of some samples."""
        return replace(
            self, rows=self.rows[indices], groups=None if self.groups is None else self.groups[indices]
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled samples of one kind; the shapes are invariants, checked when it is made.

    Attributes:
        name: what to call it in reports.
        kind: ``image`` or ``text``.
        inputs: images as uint8 [N, H, W, C]; text as int64 token ids [N, T], padded on the right.
        lengths: text only: valid tokens of each row, int32 [N], each in 1..T.
        labels: int64 [N], each in 0..max(len(classes) - 1, 0).
        classes: the name of each label; none for data without labels, which are then all 0.
        column: of a table, which the inputs came from.
        origin: of the samples; None where it is not known.
        prompts: int32 [N], the first tokens of each text that are given and not learnt; None where all are learnt.
    """

    name: str
    kind: Kind
    inputs: NDArray[Any]
    lengths: NDArray[np.int32] | None
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    column: str = ""
    origin: Origin | None = None
    prompts: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        axes, dtype = (4, np.uint8) if self.kind == "image" else (2, np.int64)
        assert self.inputs.ndim == axes and self.inputs.dtype == dtype, (self.inputs.shape, self.inputs.dtype)
        assert self.labels.shape == (len(self.inputs),) and self.labels.dtype == np.int64
        if self.kind == "text":
            assert self.lengths is not None and self.lengths.shape == self.labels.shape
            assert self.lengths.dtype == np.int32
        else:
            assert self.lengths is None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.integer[Any]]) -> Dataset:
        """Return the samples at ``indices`` [n], copied, in that order."""
        lengths = None if self.lengths is None else self.lengths[indices]
        origin = None if self.origin is None else self.origin.take(indices)
        prompts = None if self.prompts is None else self.prompts[indices]
        return replace(
            self,
            inputs=self.inputs[indices],
            lengths=lengths,
            labels=self.labels[indices],
            origin=origin,
            prompts=prompts,
        )

    def part(self, start: int, end: int) -> Dataset:
        """Return the samples ``start`` to ``end - 1`` without copying them."""
        lengths = None if self.lengths is None else self.lengths[start:end]
        origin = None if self.origin is None else self.origin.take(slice(start, end))
        return replace(
            self,
            inputs=self.inputs[start:end],
            lengths=lengths,
            labels=self.labels[start:end],
            origin=origin,
            prompts=None if self.prompts is None else self.prompts[start:end],
        )


@dataclass(frozen=True, eq=False)
class Splits:
    """A training part and held-out parts with the same classes.

    Attributes:
        train: the devices' samples, all together.
        test: what the finished model is scored on.
        notes: sentences for the user about what was guessed or converted on the way; often empty.
        validation: what rounds and rates are chosen by; None where there is none.
    """

    train: Dataset
    test: Dataset
    notes: tuple[str, ...] = ()
    validation: Dataset | None = None
