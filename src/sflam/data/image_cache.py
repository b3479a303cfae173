"""Decoded images in a file beside the data: made once, then mapped, so that pages come as they are used.

The file is an ``.npy`` whose name is the digest of the stored images and of what the model reads; a second one of the
same name holds what was noted as it was made. Sets that decode in a second are not kept.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.data.decode import decoded, opened
from sflam.data.images import ImageSpec, fitted
from sflam.files import from_json, replace_file

FOLDER = ".sflam"
"""The folder beside the data, which is left out where samples are looked for."""
LEAST_BYTES = 1 << 24
"""Decoded pixels of a set that is worth a file."""
RECIPE = b"1"
"""Changes where the same images would be decoded to other pixels."""


@dataclass(frozen=True)
class StoredImages:
    """Images as a source stores them.

    Attributes:
        images: N of them as :func:`sflam.data.decode.decoded` takes them, at least one.
        place: index -> what to call an image in an error.
        where: the path of the data, or a name that is none.
    """

    images: Sequence[Any]
    place: Callable[[int], str]
    where: str


def images_of(stored: StoredImages, spec: ImageSpec, notes: list[str]) -> NDArray[np.uint8]:
    """Return images as :func:`sflam.data.decode.decoded` does, uint8 [N, H, W, C]: mapped from a file where many.

    The file lies in ``.sflam`` beside the data, or in the user's cache where that cannot be written; where neither
    can, or the disk is too full, the images are decoded into memory.

    Raises:
        DataError: an image cannot be read, which is named.
    """
    digest = None
    if len(stored.images) * _bytes_of_first(stored, spec) >= LEAST_BYTES:
        digest = _digest(stored.images, spec)
    for folder in _folders(stored.where) if digest else []:
        if (found := _read(folder / f"images-{digest}.npy", len(stored.images))) is not None:
            images, remarks = found
            notes += remarks
            return images
    for folder in _folders(stored.where) if digest else []:
        if (made := _write(folder / f"images-{digest}.npy", stored, spec, notes)) is not None:
            return made
    return decoded(stored.images, stored.place, lambda: spec, notes)


def _folders(where: str) -> list[Path]:
    """Return where the file may lie, in order of preference."""
    source = Path(where).expanduser()
    beside = [(source if source.is_dir() else source.parent) / FOLDER] if source.exists() else []
    return [*beside, Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sflam"]


def _bytes_of_first(stored: StoredImages, spec: ImageSpec) -> int:
    """Return the bytes of an image once it is decoded."""
    image = opened(stored.images[0], stored.place(0))
    return int(np.asarray(fitted(image, spec) if image.width * image.height > spec.size**2 else image).nbytes)


def _digest(images: Sequence[Any], spec: ImageSpec) -> str | None:
    """Return what changes with the images and the model's side; None where images are neither files nor bytes."""
    import PIL

    whole = hashlib.sha256(RECIPE)
    whole.update(json.dumps([PIL.__version__, spec.size, spec.channels, spec.resample]).encode())
    for content in images:
        if isinstance(content, Mapping):
            content = content.get("bytes") or content.get("path")
        if isinstance(content, bytes):
            whole.update(hashlib.sha256(content).digest())
        elif isinstance(content, str | Path) and os.path.isfile(content):
            known = os.stat(content)
            whole.update(f"{os.path.abspath(content)}:{known.st_size}:{known.st_mtime_ns}\n".encode())
        else:
            return None
    return whole.hexdigest()[:32]


def _read(path: Path, count: int) -> tuple[NDArray[np.uint8], list[str]] | None:
    """Return what is kept in a file and its notes; None where there is none, or it is damaged."""
    try:
        remarks = from_json(path.with_suffix(".json").read_text(encoding="utf-8"))
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != count or not isinstance(remarks, list):
        return None
    return np.asarray(images), [str(remark) for remark in remarks]


def _write(target: Path, stored: StoredImages, spec: ImageSpec, notes: list[str]) -> NDArray[np.uint8] | None:
    """Decode into a file and return it mapped; None where its folder cannot be written or has no room for it."""
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")

    def allocate(shape: tuple[int, ...]) -> NDArray[np.uint8]:
        beside.unlink(missing_ok=True)  # of an earlier shape; what maps it still reads it
        mapped = np.lib.format.open_memmap(beside, mode="w+", dtype=np.uint8, shape=shape)
        if hasattr(os, "posix_fallocate"):  # a full disk is an error now, and no signal later
            with beside.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, beside.stat().st_size)
        return mapped

    remarks: list[str] = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        images = decoded(stored.images, stored.place, lambda: spec, remarks, allocate)
        assert isinstance(images, np.memmap)
        images.flush()
        replace_file(target.with_suffix(".json"), json.dumps(remarks).encode())
        os.replace(beside, target)
    except OSError:
        return None
    finally:
        if beside.exists():
            beside.unlink()
    notes += [
        *remarks,
        f"decoded images ({images.nbytes / 1e6:.0f} MB) are kept in {target.parent} for the next time",
    ]
    return np.asarray(images)
