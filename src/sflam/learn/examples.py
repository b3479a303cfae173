"""A dataset as a model's mini-batches.

B rows of a mini-batch, T tokens, N samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sflam.data.dataset import Dataset
from sflam.data.images import ImageSpec, to_pixels
from sflam.errors import DataError
from sflam.model.backbone import Backbone
from sflam.model.families import CAUSAL
from sflam.model.loss import IGNORED

CACHED_PIXELS = 64 * 2**20
"""Below this many pixel values the whole dataset is preprocessed once; above, batch by batch."""


@dataclass(frozen=True, eq=False)
class Minibatch:
    """What one step of one device trains on.

    Attributes:
        inputs: the model's own argument names -> [B, ...].
        lengths: [B] valid tokens of each right-padded row; None when every row is full.
        labels: [B], or [B,T] for a language model, with ``IGNORED`` on padding and on what is given.
        ids: B numbers, those of the samples in their dataset; empty where not needed.
    """

    inputs: dict[str, Tensor]
    lengths: Tensor | None
    labels: Tensor
    ids: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, rows: Tensor) -> Minibatch:
        """Return the mini-batch of some rows [b], padded as it is."""
        inputs = {name: values[rows.to(values.device)] for name, values in self.inputs.items()}
        at = rows.to(self.labels.device)
        lengths = None if self.lengths is None else self.lengths[at]
        return Minibatch(inputs, lengths, self.labels[at], tuple(self.ids[row] for row in rows.tolist()))

    def counts(self, width: int) -> list[int]:
        """Return the valid tokens of each row of ``width`` tokens."""
        return [width] * len(self) if self.lengths is None else self.lengths.tolist()


class Examples:
    """The samples of one dataset as a backbone wants them.

    Raises:
        DataError: the backbone cannot read this kind of data, or a token id is outside its vocabulary.
    """

    def __init__(
        self, dataset: Dataset, backbone: Backbone, spec: ImageSpec | None = None, *, buckets: bool = False
    ) -> None:
        """Bind ``dataset`` to ``backbone``; images need the ``spec`` of its pixels, ``buckets`` is of ``[data]``."""
        self.dataset = dataset
        self.task = backbone.task
        self.dtype = torch.float64 if backbone.model.dtype == torch.float64 else torch.float32
        self.device = backbone.model.device
        self.spec = spec
        wanted = "image" if backbone.model.main_input_name == "pixel_values" else "text"
        if dataset.kind != wanted:
            raise DataError(
                f"model {backbone.name!r} reads {wanted}s but data {dataset.name!r} holds {dataset.kind}s; choose "
                f"a model.name that reads {dataset.kind}s"
            )
        if dataset.kind == "text" and int(dataset.inputs.max()) >= backbone.model.config.vocab_size:
            raise DataError(
                f"data {dataset.name!r} holds token id {int(dataset.inputs.max())}, but the vocabulary of model "
                f"{backbone.name!r} ends at {backbone.model.config.vocab_size - 1}; use the model's own tokenizer"
            )
        limit = getattr(backbone.model.config, "max_position_embeddings", None)
        if dataset.kind == "text" and limit and dataset.inputs.shape[1] > limit:
            raise DataError(
                f"data {dataset.name!r} holds rows of {dataset.inputs.shape[1]} tokens, but model {backbone.name!r} "
                f"sees at most {limit}; truncate them"
            )
        if dataset.kind == "text" and self.task == CAUSAL:
            _expect_pairs(dataset)
        self.buckets = dataset.lengths if buckets else None
        """[N] lengths that mini-batches are grouped by; None where they are not."""
        self.pad = self._padding(backbone) if dataset.kind == "text" else 0
        self._pixels: Tensor | None = None
        if spec and len(dataset) * spec.channels * spec.size**2 <= CACHED_PIXELS:
            self._pixels = self._tensor(to_pixels(dataset.inputs, spec))

    def __len__(self) -> int:
        return len(self.dataset)

    def in_length_order(self, rows: int) -> Iterator[NDArray[np.int64]]:
        """Yield all indices, at most ``rows`` at a time, rows of like length together: the least padding."""
        lengths = self.dataset.lengths
        order = np.arange(len(self)) if lengths is None else np.argsort(lengths, kind="stable")
        for start in range(0, len(order), rows):
            yield order[start : start + rows]

    def tokens(self, indices: NDArray[np.int64], most: int) -> list[int]:
        """Return the tokens of each of some samples; ``most`` where all have as many."""
        lengths = self.dataset.lengths
        return [most] * len(indices) if lengths is None else lengths[indices].tolist()

    def take(self, indices: NDArray[np.int64]) -> Minibatch:
        """Return the mini-batch of the samples at ``indices`` [B]."""
        labels, ids = torch.from_numpy(self.dataset.labels[indices]).to(self.device), tuple(indices.tolist())
        if self._pixels is not None:
            return Minibatch({"pixel_values": self._pixels[torch.from_numpy(indices)]}, None, labels, ids)
        if self.spec:
            pixels = self._tensor(to_pixels(self.dataset.inputs[indices], self.spec))
            return Minibatch({"pixel_values": pixels}, None, labels, ids)
        assert self.dataset.lengths is not None
        lengths = self.dataset.lengths[indices]
        width = int(lengths.max())
        valid = np.arange(width)[None, :] < lengths[:, None]
        rows = np.where(valid, self.dataset.inputs[indices][:, :width], self.pad)
        tokens = torch.from_numpy(rows).to(self.device)
        full = None if (lengths == width).all() else torch.from_numpy(lengths).long().to(self.device)
        if self.task == CAUSAL:
            labels = tokens.clone()
            if full is not None:
                labels[torch.arange(width, device=self.device)[None, :] >= full[:, None]] = IGNORED
            if self.dataset.prompts is not None:
                given = torch.from_numpy(self.dataset.prompts[indices]).to(self.device)
                labels[torch.arange(width, device=self.device)[None, :] < given[:, None]] = IGNORED
        return Minibatch({"input_ids": tokens}, full, labels, ids)

    def _padding(self, backbone: Backbone) -> int:
        """Return the id that pads rows, setting the model's where it has none.

        Classifiers of the last token find it, in Hugging Face, as the last that is no pad.
        """
        config = backbone.model.config
        if config.pad_token_id is None:
            end = config.eos_token_id
            config.pad_token_id = end if isinstance(end, int) and end < config.vocab_size else 0
        pad = int(config.pad_token_id)
        assert self.dataset.lengths is not None
        last = self.dataset.inputs[np.arange(len(self.dataset)), self.dataset.lengths - 1]
        if backbone.family.causal and self.task != CAUSAL and (last == pad).any():
            row = int(np.flatnonzero(last == pad)[0])
            raise DataError(
                f"row {row} of data {self.dataset.name!r} ends with token id {pad}, which pads rows of model "
                f"{backbone.name!r}; shorten its length, or end rows with another token"
            )
        return pad

    def _tensor(self, pixels: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(pixels).to(self.device, self.dtype)


def _expect_pairs(dataset: Dataset) -> None:
    """Raise DataError for a row of one token: it has no next token to predict."""
    assert dataset.lengths is not None
    short = np.flatnonzero(dataset.lengths < 2)
    if len(short):
        raise DataError(
            f"{len(short)} rows of data {dataset.name!r} hold a single token, but a language model predicts each token "
            "from those before it; remove such rows"
        )


def stack_batches(batches: list[Minibatch]) -> Minibatch:
    """Return several devices' mini-batches as one, token ids padded to the longest row."""
    if len(batches) == 1:
        return batches[0]
    name = next(iter(batches[0].inputs))
    widths = [batch.inputs[name].shape[1] for batch in batches]
    width = max(widths)
    if name == "pixel_values" or len(set(widths)) == 1:
        inputs = torch.cat([batch.inputs[name] for batch in batches])
    else:
        padded = [
            torch.nn.functional.pad(b.inputs[name], (0, width - b.inputs[name].shape[1])) for b in batches
        ]
        inputs = torch.cat(padded)
    lengths = join_lengths([b.lengths for b in batches], [len(b) for b in batches], widths, inputs.device)
    return Minibatch({name: inputs}, None if name == "pixel_values" else lengths, torch.empty(len(inputs)))


def join_lengths(
    lengths: list[Tensor | None], rows: list[int], widths: list[int], device: torch.device
) -> Tensor | None:
    """Return [R], the valid tokens of rows padded to the widest of ``widths``; None when all are full."""
    if len(set(widths)) == 1 and all(length is None for length in lengths):
        return None
    return torch.cat(
        [
            torch.full((count,), width, device=device) if length is None else length.to(device)
            for length, count, width in zip(lengths, rows, widths, strict=True)
        ]
    )


def padded_tokens(tokens: Tensor, width: int) -> Tensor:
    """Return [B,T,d] with zeros appended up to ``width`` tokens."""
    missing = width - tokens.shape[1]
    return torch.nn.functional.pad(tokens, (0, 0, 0, missing)) if missing else tokens


def padded_labels(labels: Tensor | None, width: int) -> Tensor:
    """Return labels of tokens [B,T] with ``IGNORED`` appended up to ``width``; labels of rows [B] as they are."""
    assert labels is not None, "labels came where they were agreed"
    if labels.ndim == 1:
        return labels
    return torch.nn.functional.pad(labels, (0, width - labels.shape[1]), value=IGNORED)
