"""From a name or a path to a training and a test part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sflam.data.dataset import Dataset, Splits
from sflam.data.holdout import stratified
from sflam.data.local import read_npz
from sflam.data.settings import DataSettings
from sflam.errors import DataError, unknown
from sflam.seeds import generator


def digits() -> Dataset:
    """Return the 1797 handwritten digits of scikit-learn: 8 x 8 grey pixels, 17 levels spread over 0..255.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository, 1998 (its test part). The file comes with scikit-learn: nothing is downloaded.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("the digits dataset comes with scikit-learn; pip install 'sflam[train]'") from error

    bunch = load_digits()
    levels = bunch.images[..., np.newaxis]  # [N, 8, 8, 1], 0..16
    return Dataset(
        name="digits",
        kind="image",
        inputs=np.rint(levels * (255 / 16)).astype(np.uint8),
        lengths=None,
        labels=bunch.target.astype(np.int64),
        classes=tuple(str(name) for name in bunch.target_names),
    )


DATASETS: dict[str, Callable[[], Dataset]] = {"digits": digits}


def is_path(name: str) -> bool:
    """Say whether ``name`` means a file rather than a named dataset."""
    return name.endswith(".npz") or "/" in name or "\\" in name


def load_for_prediction(settings: DataSettings, seed: int) -> tuple[Dataset, tuple[str, ...]]:
    """Return the samples to predict, and notes: all of a file's, labelled or not, or a named dataset's test part.

    Raises:
        DataError: the name is unknown, or the file cannot be used.
    """
    if is_path(settings.name):
        path = Path(settings.name).expanduser()
        return read_npz(path, settings.input, settings.label, labelled=False)
    return load_held_out(settings, seed)


def load_held_out(settings: DataSettings, seed: int) -> tuple[Dataset, tuple[str, ...]]:
    """Return the test part that :func:`load` gives, and notes.

    Raises:
        DataError: the name is unknown, or the file cannot be used.
    """
    splits = load(settings, seed)
    return splits.test, (*splits.notes, f"{settings.name}: the held-out samples of seed {seed}")


def load(settings: DataSettings, seed: int) -> Splits:
    """Return the samples of ``settings.name``, divided into train and test by the stream ``holdout``.

    Raises:
        DataError: the name is unknown, or the file cannot be used.
    """
    notes: tuple[str, ...] = ()
    if is_path(settings.name):
        whole, notes = read_npz(Path(settings.name).expanduser(), settings.input, settings.label)
    elif settings.name in DATASETS:
        whole = DATASETS[settings.name]()
    else:
        hint = unknown("dataset", settings.name, DATASETS)
        raise DataError(f"{hint}; for a local file give its path, ending in .npz")
    train, test = stratified(whole.labels, settings.test, generator(seed, "holdout"))
    return Splits(train=whole.take(train), test=whole.take(test), notes=notes)
