"""From a name or a path to a training, a test and, where there is one, a validation part."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from sflam.data.dataset import Dataset, Splits
from sflam.data.folders import image_folder
from sflam.data.groups import column_of, describe_images, origin_of
from sflam.data.holdout import stratified
from sflam.data.local import read_npz
from sflam.data.preprocessor import Preprocessor
from sflam.data.raw import Raw, dataset_of
from sflam.data.rows import of_tables, paths_as_images, without_blank_texts, without_single_tokens
from sflam.data.settings import DataSettings
from sflam.data.tables import READERS, Table, files_of, read_files, read_hub
from sflam.errors import DataError, unknown
from sflam.seeds import generator

DIGITS = Path(__file__).with_name("digits.npz")


def digits() -> Dataset:
    """Return the 1797 handwritten digits of scikit-learn: 8 x 8 grey pixels, 17 levels spread over 0..255.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository, 1998 (its test part), CC BY 4.0. They come with sflam, so that a device without scikit-learn has them.
    """
    with np.load(DIGITS, allow_pickle=False) as archive:
        levels, labels = archive["levels"][..., np.newaxis], archive["labels"]  # [N, 8, 8, 1], 0..16; [N]
    return Dataset(
        name="digits",
        kind="image",
        inputs=np.rint(np.arange(17) * (255 / 16)).astype(np.uint8)[levels],
        lengths=None,
        labels=labels.astype(np.int64),
        classes=tuple(map(str, range(10))),
    )


DATASETS: dict[str, Callable[[], Dataset]] = {"digits": digits}

FILES = (".npz", *READERS)
"""Extensions that are read."""

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
OTHER_FILES = (".txt", ".tsv", ".json", ".arrow", ".zip", ".gz", ".npy", ".xlsx", ".pkl", ".pt")
"""Extensions that are not read, but mean a file and no hub name."""


def is_path(name: str) -> bool:
    """Return whether ``name`` means a file or a folder, there or not, rather than a named dataset or one of the hub."""
    suffix = Path(name).suffix.lower()
    return os.path.exists(name) or suffix in (*FILES, *OTHER_FILES) or not HUB_NAME.fullmatch(name)


def load_for_prediction(
    settings: DataSettings, seed: int, preprocessor: Preprocessor | None = None
) -> tuple[Dataset, tuple[str, ...]]:
    """Return the samples to predict, and notes: a path's test split or all of it, or a named dataset's test part.

    Raises:
        DataError: the name is unknown, or the data cannot be used.
    """
    if settings.name in DATASETS:
        return load_held_out(settings, seed, preprocessor)
    path = Path(settings.name).expanduser()
    if path.suffix.lower() == ".npz":
        return read_npz(path, settings.input, settings.label, labelled=False)
    notes: list[str] = []
    whole, sizes = _read(settings, preprocessor, notes, labelled=False)
    if len(sizes) > 1:
        notes.append(f"{settings.name}: its {list(sizes)[1]} split")
        whole = _parts(whole, sizes)[1]
    return whole, tuple(notes)


def load_held_out(
    settings: DataSettings, seed: int, preprocessor: Preprocessor | None = None
) -> tuple[Dataset, tuple[str, ...]]:
    """Return the test part that :func:`load` gives, and notes.

    Raises:
        DataError: the name is unknown, or the data cannot be used.
    """
    splits = load(settings, seed, preprocessor)
    return splits.test, (*splits.notes, f"{settings.name}: the held-out samples of seed {seed}")


def load(settings: DataSettings, seed: int, preprocessor: Preprocessor | None = None) -> Splits:
    """Return the samples of ``settings.name``: its own parts, or divided by the seed.

    What it does not bring is drawn: a test part by the stream ``holdout`` from all samples, a validation part by the
    stream ``validation`` from the training samples, so that asking for one moves no sample of the test part.

    Args:
        settings: which data.
        seed: the seed of the run.
        preprocessor: the model's side, which everything but named datasets and ``.npz`` files needs.

    Raises:
        DataError: the name is unknown, or the data cannot be used.
    """
    notes: list[str] = []
    if settings.name in DATASETS:
        whole, sizes = DATASETS[settings.name](), dict[str, int]()
        whole = replace(whole, origin=origin_of(len(whole), len(whole)))
    elif Path(settings.name).suffix.lower() == ".npz":
        if settings.answer:
            raise DataError(
                f"{settings.name}: an .npz holds token ids; data.answer names a column of texts, of a .csv, .jsonl or "
                ".parquet file"
            )
        path, group = Path(settings.name).expanduser(), column_of(settings)
        whole, remarks = read_npz(path, settings.input, settings.label, group=group)
        notes, sizes = [*remarks], {}
    else:
        whole, sizes = _read(settings, preprocessor, notes, labelled=True)
    if len(sizes) > 1:
        train, test, *others = _parts(whole, sizes)
    else:
        kept, held = stratified(whole.labels, settings.test, generator(seed, "holdout"))
        train, test, others = whole.take(kept), whole.take(held), []
    if settings.validation and not others:
        kept, held = stratified(
            train.labels, settings.validation, generator(seed, "validation"), "validation"
        )
        notes.append(
            f"{len(held)} of the {len(train)} training samples are held out for validation: a share of "
            f"{settings.validation:g}, which data.validation sets"
        )
        train, others = train.take(kept), [train.take(held)]
    return Splits(train=train, test=test, notes=tuple(notes), validation=others[0] if others else None)


def _parts(whole: Dataset, sizes: Mapping[str, int]) -> list[Dataset]:
    """Return the samples of each split: train, test and, where there is a third, validation."""
    ends = np.cumsum([0, *sizes.values()])
    return [whole.part(int(start), int(end)) for start, end in pairwise(ends)]


def _read(
    settings: DataSettings, preprocessor: Preprocessor | None, notes: list[str], *, labelled: bool
) -> tuple[Dataset, dict[str, int]]:
    """Return all samples of a path or a hub dataset, and split -> its samples in that order, or one for all."""
    raw = raw_samples(settings, notes, labelled=labelled)
    assert preprocessor is not None, "raw samples need a model's side"
    if raw.labels is None and labelled:
        if raw.kind == "image":
            raise DataError(f"{raw.where}: data.label is empty, but images need labels; name their column")
        raw = without_blank_texts(raw, notes)
    whole = dataset_of(raw, preprocessor, max_tokens=settings.max_tokens, every=labelled, notes=notes)
    if labelled and len(whole.classes) == 1:
        raise DataError(f"{raw.where}: all labels are {whole.classes[0]!r}; at least two classes are needed")
    if labelled and raw.labels is None:
        whole, sizes = without_single_tokens(whole, raw.sizes, notes)
        if not all(sizes.values()):
            raise DataError(f"{raw.where}: holds no text of two tokens or more; a language model needs them")
        return whole, sizes
    return whole, dict(raw.sizes)


def raw_samples(
    settings: DataSettings,
    notes: list[str],
    *,
    labelled: bool,
    read: Callable[[Mapping[str, list[Path]], Path], Mapping[str, Table]] = read_files,
) -> Raw:
    """Return the samples of a path or a hub dataset as they are stored; what was guessed is added to ``notes``.

    Args:
        settings: which data.
        notes: sentences for the user.
        labelled: whether there must be labels, where they are named.
        read: reads files of tables.

    Raises:
        DataError: they cannot be read.
    """
    name, path = settings.name, Path(settings.name).expanduser()
    if not is_path(name) and not path.exists():
        if "/" not in name and difflib.get_close_matches(name, DATASETS):
            hint = unknown("dataset", name, DATASETS)
            raise DataError(f"{hint}; for a local file give its path, ending in {' or '.join(FILES)}")
        return of_tables(
            read_hub(name, settings.config), settings, name, notes, where=name, labelled=labelled
        )
    if path.is_dir():
        files = files_of(path)
        if not files or describe_images(files, settings.label):
            return image_folder(path, notes, labelled=labelled, group=column_of(settings))
    elif not path.exists():
        raise DataError(
            f"{path}: no such file; give a named dataset, an existing file or folder, or a hub name"
        )
    elif path.suffix.lower() not in READERS:
        raise DataError(
            f"{path}: {path.suffix or 'files without an extension'} cannot be read; convert it to one of "
            f"{', '.join(FILES)}"
        )
    else:
        files = {"": [path]}
    tables = read(files, path)
    raw = of_tables(tables, settings, path.stem, notes, where=str(path), labelled=labelled)
    return paths_as_images(raw, path if path.is_dir() else path.parent, notes)
