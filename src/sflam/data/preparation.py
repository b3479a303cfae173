"""Raw samples to a file that can be mapped: what a model reads, made once; training then holds a mini-batch at a time.

The arrays are those of :mod:`sflam.data.local`, uncompressed and of the types a dataset has; ``classes`` names the
labels. Images are decoded one by one; texts and their token ids are all in memory at once while this runs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sflam.data.dataset import Dataset
from sflam.data.decode import fitted_images
from sflam.data.images import ImageSpec
from sflam.data.local import read_npz
from sflam.data.mapped import Array, Pieces, mapped_arrays, write_arrays
from sflam.data.plain_tables import read_plain
from sflam.data.preprocessor import Preprocessor
from sflam.data.raw import Raw, dataset_of, labels_of
from sflam.data.rows import without_blank_texts, without_single_tokens
from sflam.data.settings import DataSettings
from sflam.data.sources import is_path, raw_samples
from sflam.data.tokenizer_file import TokenizerFile
from sflam.errors import DataError
from sflam.files import from_json, visible_files, writing
from sflam.values import fields_of


def preprocessor_of_folder(folder: Path) -> Preprocessor:
    """Return how the model whose files are in ``folder`` wants raw texts and images, read without transformers."""
    tokenizer = TokenizerFile(folder)

    def image() -> ImageSpec:
        return ImageSpec.from_folder(folder, from_json((folder / "config.json").read_text(encoding="utf-8")))

    return Preprocessor(encode=tokenizer.encode, longest=tokenizer.longest, image=image)


def prepared_name(settings: DataSettings, folder: Path) -> str:
    """Return a name for prepared samples that changes with the files, the settings and the model they are for."""
    found = hashlib.sha256(json.dumps(fields_of(settings), sort_keys=True).encode())
    source = Path(settings.name).expanduser()
    for path in sorted(visible_files(source)) if source.is_dir() else [source]:
        stat = path.stat()
        found.update(f"{path}:{stat.st_size}:{stat.st_mtime_ns}\n".encode())
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            found.update((folder / name).read_bytes())
    return f"samples-{found.hexdigest()[:16]}.npz"


def prepare(settings: DataSettings, preprocessor: Preprocessor, target: Path, notes: list[str]) -> None:
    """Write the training samples of a path to ``target``, whole or not at all; what was done is added to ``notes``.

    Args:
        settings: ``name`` is the path; the names of the columns, and ``max_tokens``.
        preprocessor: the model's side.
        target: the ``.npz`` to write.
        notes: sentences for the user.

    Raises:
        DataError: they cannot be used.
    """
    path = Path(settings.name).expanduser()
    if path.suffix.lower() == ".npz":
        dataset, remarks = read_npz(path, settings.input, settings.label)
        notes += remarks
        return _write(target, dataset)
    if not (is_path(settings.name) or path.exists()):
        raise DataError(
            f"data {settings.name!r}: a device brings a file or a folder of its own; give its path"
        )
    raw = raw_samples(settings, notes, labelled=True, read=read_plain)
    if raw.kind == "image":
        return _write_images(target, raw, preprocessor)
    if raw.labels is None:
        raw = without_blank_texts(raw, notes)
    texts = dataset_of(raw, preprocessor, max_tokens=settings.max_tokens, every=True, notes=notes)
    sizes = dict(raw.sizes)
    if raw.labels is None:
        texts, sizes = without_single_tokens(texts, sizes, notes)
        if not all(sizes.values()):
            raise DataError(f"{raw.where}: holds no text of two tokens or more; a language model needs them")
    _expect_classes(raw.where, texts.classes)
    first = next(iter(sizes.values()))
    _write(target, texts if len(sizes) == 1 else texts.part(0, first), own_parts=len(sizes) > 1)


def read_prepared(path: Path) -> tuple[Dataset, bool]:
    """Return the samples that :func:`prepare` wrote, mapped, and whether they are a training part already."""
    arrays = mapped_arrays(path)
    assert arrays is not None, "they are written uncompressed"
    kind = "text" if "lengths" in arrays else "image"
    lengths = np.array(arrays["lengths"]) if kind == "text" else None
    classes = tuple(str(name) for name in arrays["classes"])
    labels = np.array(arrays["label"])
    inputs = arrays["input_ids" if kind == "text" else "image"]
    found = Dataset(path.stem, "text" if lengths is not None else "image", inputs, lengths, labels, classes)
    return found, bool(arrays["own_parts"])


def _write(target: Path, dataset: Dataset, *, own_parts: bool = False) -> None:
    inputs = {"image" if dataset.kind == "image" else "input_ids": dataset.inputs}
    if dataset.lengths is not None:
        inputs["lengths"] = dataset.lengths
    known = {
        "label": dataset.labels,
        "classes": np.array(dataset.classes, np.str_),
        "own_parts": np.array(own_parts),
    }
    _whole(target, lambda path: write_arrays(path, inputs | known))


def _write_images(target: Path, raw: Raw, preprocessor: Preprocessor) -> None:
    if raw.labels is None:
        raise DataError(f"{raw.where}: data.label is empty, but images need labels; name their column")
    if not raw.inputs:
        raise DataError(f"{raw.where}: holds no samples; at least one is needed")
    spec = preprocessor.image()
    labels, classes = labels_of(raw, raw.labels, True)
    _expect_classes(raw.where, classes)
    count = next(iter(raw.sizes.values()))
    stored = raw.inputs[:count]
    images = fitted_images(stored, raw.place, spec)
    shape = (count, spec.size, spec.size, spec.channels)
    known: dict[str, Array | Pieces] = {
        "image": (np.dtype(np.uint8), shape, images),
        "label": labels[:count],
        "classes": np.array(classes, np.str_),
        "own_parts": np.array(len(raw.sizes) > 1),
    }
    _whole(target, lambda path: write_arrays(path, known))


def _whole(target: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a file beside ``target``, and move it there."""
    with writing(target, "choose another --folder", DataError):
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.tmp")
        try:
            write(beside)
            os.replace(beside, target)
        finally:
            beside.unlink(missing_ok=True)


def _expect_classes(where: str, classes: tuple[str, ...]) -> None:
    if len(classes) == 1:
        raise DataError(f"{where}: all labels are {classes[0]!r}; at least two classes are needed")
