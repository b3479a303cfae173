"""A folder of images, one sub-folder per class, or ``train/``, ``test/`` and ``validation/`` of such folders."""

from __future__ import annotations

from pathlib import Path

from sflam.data.decode import SUFFIXES
from sflam.data.groups import METADATA, of_images, origin_of
from sflam.data.raw import Raw
from sflam.data.tables import TESTS, held_out_notes
from sflam.errors import DataError


def image_folder(folder: Path, notes: list[str], *, labelled: bool = True, group: str = "") -> Raw:
    """Return the images of a folder as paths, with the names of their sub-folders as labels.

    Unless they must be ``labelled``, the folder itself may also hold images; they then have no labels.

    Whose each image is, where ``group`` names that column, is in ``metadata.csv``.

    Files and folders whose names begin with a dot are left out, and so are other files, with a note.

    Raises:
        DataError: there are no class folders, or one of them holds no image.
    """
    flat = _images(folder)[0]
    if flat and not labelled:
        notes.append(f"{folder.name} has no folder per class: predictions only, no accuracy")
        return Raw(folder.name, str(folder), "image", flat, None, {"": len(flat)}, column="image", label="")
    found = {path.name: path for path in _folders(folder)}
    held_out = [name for name in TESTS if name in found]
    splits = {"": folder}
    if "train" in found and set(found) <= {"train", *TESTS}:
        splits = {name: found[name] for name in ("train", *held_out[:2])}
        notes += held_out_notes(folder.name, held_out[:2])
        if held_out[2:]:
            notes.append(f"{folder.name} ({', '.join(sorted(held_out[2:]))}) is not used")
    inputs: list[Path] = []
    labels: list[str] = []
    sizes: dict[str, int] = {}
    strange = 0
    for split, below in splits.items():
        start = len(inputs)
        for class_folder in _folders(below):
            images, others = _images(class_folder)
            if not images:
                raise DataError(
                    f"{class_folder}: no image in this class folder (known: {', '.join(SUFFIXES)}); put images "
                    "directly into it, or remove it"
                )
            strange += others
            inputs += images
            labels += [class_folder.name] * len(images)
        sizes[split] = len(inputs) - start
        if not sizes[split]:
            raise DataError(
                f"{below}: neither tables (.parquet, .csv, .jsonl) nor images in one sub-folder per class"
            )
    if strange:
        notes.append(f"{strange} files in {folder.name} are no images and were left out")
    groups = of_images(group, inputs, folder) if group and labelled else []
    origin = origin_of(len(inputs), next(iter(sizes.values())), groups) if labelled else None
    return Raw(
        folder.name,
        str(folder),
        "image",
        inputs,
        labels,
        sizes,
        column="image",
        label="folder",
        origin=origin,
    )


def _images(folder: Path) -> tuple[list[Path], int]:
    """Return the images directly in a folder, and how many other files there are."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    return images, len([path for path in files if path.name != METADATA]) - len(images)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
