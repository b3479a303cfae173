"""A device's samples without torch: arrays mapped from a file, and the rows of one mini-batch as a model reads them.

N samples, B rows, C channels, S x S pixels, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.config import Job
from sflam.data.dataset import Dataset
from sflam.data.holdout import stratified
from sflam.data.images import ImageSpec, to_pixels
from sflam.data.local import read_npz
from sflam.data.mapped import extremes, mapped_arrays, rows_of
from sflam.data.partition import share_out
from sflam.data.preparation import preprocessor_of_folder, read_prepared
from sflam.data.settings import DataSettings
from sflam.data.sources import DATASETS
from sflam.data.sources import load as load_data
from sflam.device.prepare import prepared
from sflam.errors import DataError
from sflam.files import from_json
from sflam.link.own_data import own_settings, with_classes
from sflam.seeds import generator

Notify = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class OwnSamples:
    """The samples of one device, bound to its model.

    Attributes:
        dataset: N samples, mapped where they came from an uncompressed file.
        own: which of them it trains on, int64 [n].
        spec: what the model's images look like; None for texts.
        causal: whether every token is the label of the one before it.
    """

    dataset: Dataset
    own: NDArray[np.int64]
    spec: ImageSpec | None
    causal: bool

    def pixels(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return float32 [B, C, S, S] of the images at ``indices``."""
        assert self.spec is not None
        return to_pixels(rows_of(self.dataset.inputs, indices), self.spec)

    def tokens(self, index: int) -> NDArray[np.int64]:
        """Return the valid token ids of one text, int64 [1, T]."""
        assert self.dataset.lengths is not None
        rows = rows_of(self.dataset.inputs, np.array([index]))
        return np.ascontiguousarray(rows[:, : self.dataset.lengths[index]])

    def labels(self, indices: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return int32 [B]; for a language model all valid tokens, row after row."""
        if not self.causal:
            return self.dataset.labels[indices].astype(np.int32)
        return np.concatenate([self.tokens(index)[0] for index in indices.tolist()]).astype(np.int32)

    def counts(self, indices: NDArray[np.int64], tokens: int) -> NDArray[np.int32]:
        """Return the valid tokens of rows, int32 [B]; images have ``tokens`` each."""
        lengths = self.dataset.lengths
        return np.full(len(indices), tokens, np.int32) if lengths is None else lengths[indices]


def samples_of(
    job: Job,
    data: str | None,
    device: int,
    classes: Sequence[str],
    task: str,
    model: Path,
    cache: Path,
    *,
    share: bool = False,
    column: str = "",
    label: str = "",
    notify: Notify = lambda line: None,
) -> OwnSamples:
    """Return a device's own samples, or its share of the job's.

    Args:
        job: as served.
        data: a file or folder of this device alone, or a named dataset; with ``share`` a copy of the job's data.
        share: take this device's share of the job's data; without ``data`` of a public data set alone.
        device: its number.
        classes: the server's.
        task: key of the family's tasks.
        model: folder with what the server gave of the model.
        cache: folder for samples prepared once.
        column: array or column of the inputs; the job's by default.
        label: array or column of the labels; the job's by default.
        notify: shows a line to the user of the device.

    Raises:
        DataError: they cannot be used.
    """
    settings = own_settings(job, data, column, label, share=share)
    if share or data in DATASETS:
        splits = load_data(settings, job.seed, preprocessor_of_folder(model))
        for note in splits.notes:
            notify(note)
        if share:
            shared = share_out(job.data, splits.train, job.fleet.devices, job.seed)
            return _bound(shared.train, shared.parts[device], task, model)
        whole, own = splits.train, np.arange(len(splits.train))
    else:
        whole, own = _of_path(settings, job.seed, model, cache, notify)
    return _bound(with_classes(whole, classes, settings.name), own, task, model)


def _of_path(
    settings: DataSettings, seed: int, model: Path, cache: Path, notify: Notify
) -> tuple[Dataset, NDArray[np.int64]]:
    """Return the samples of a path, mapped, and the indices of those that are not held out."""
    path = Path(settings.name).expanduser()
    own_parts = False
    if _is_ready(path, settings.label):
        whole, notes = read_npz(path, settings.input, settings.label, mapped=True)
        for note in notes:
            notify(note)
    else:
        whole, own_parts = read_prepared(prepared(settings, model, cache, notify))
    if own_parts:
        return whole, np.arange(len(whole))
    return whole, stratified(whole.labels, settings.test, generator(seed, "holdout"))[0]


def _is_ready(path: Path, label: str) -> bool:
    """Return whether a file can be mapped as it is: uncompressed, of the types that a dataset has."""
    if path.suffix.lower() != ".npz":
        return False
    try:
        arrays = mapped_arrays(path)
    except (OSError, ValueError):  # reported where it is read
        return False
    except Exception as error:  # zipfile's own
        if type(error).__name__ != "BadZipFile":
            raise
        return False
    wide = [array for name, array in (arrays or {}).items() if array.ndim > 1 and name != label]
    return arrays is not None and all(
        array.dtype in (np.dtype(np.uint8), np.dtype(np.int64)) for array in wide
    )


def _bound(dataset: Dataset, own: NDArray[np.int64], task: str, model: Path) -> OwnSamples:
    """Return the samples bound to the model in a folder; raises DataError where it cannot read them."""
    try:
        config: dict[str, Any] = from_json((model / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{model}/config.json cannot be read ({str(error)[:80]}); delete the folder and join again"
        ) from error
    wanted = "image" if task == "image-classification" else "text"
    if dataset.kind != wanted:
        raise DataError(
            f"the job's model reads {wanted}s but data {dataset.name!r} holds {dataset.kind}s; bring {wanted}s"
        )
    if dataset.kind == "image":
        return OwnSamples(dataset, own, ImageSpec.from_folder(model, config), False)
    most, limit = int(extremes(dataset.inputs)[1]), config.get("max_position_embeddings")
    if most >= int(config["vocab_size"]):
        raise DataError(
            f"data {dataset.name!r} holds token id {most}, but the vocabulary of the job's model ends at "
            f"{int(config['vocab_size']) - 1}; use the model's own tokenizer"
        )
    assert dataset.lengths is not None
    if limit and int(dataset.lengths.max()) > int(limit):
        raise DataError(
            f"data {dataset.name!r} holds rows of {int(dataset.lengths.max())} tokens, but the job's model sees at "
            f"most {limit}; truncate them"
        )
    causal = task == "causal-lm"
    if causal and int(dataset.lengths.min()) < 2:
        raise DataError(
            f"{int((dataset.lengths < 2).sum())} rows of data {dataset.name!r} hold a single token, but a language "
            "model predicts each token from those before it; remove such rows"
        )
    return OwnSamples(dataset, own, None, causal)
