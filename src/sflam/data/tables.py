"""Tables of samples through the ``datasets`` library: local parquet, CSV and JSON lines, or a dataset of the hub.

A split is a name (``train``, ``test``; empty when a source has none) and its table.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sflam.errors import DataError

READERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".parquet": ("parquet", {}),
    # A text that reads "NA" or "null" is a text, not a missing one.
    ".csv": ("csv", {"keep_default_na": False}),
    ".jsonl": ("json", {}),
}
"""Extension -> name of the library's reader, and its options."""

TESTS = ("test", "validation", "valid", "dev", "val")
"""What a held-out split may be called. Of those there are, the first is the test part, the second validates."""

Table = Any
"""A ``datasets.Dataset``."""


def held_out_notes(name: str, splits: Sequence[str]) -> list[str]:
    """Return sentences on what the held-out splits serve as, the test part first, where their names differ from it."""
    return [
        f"the split {split} of {name} serves as its {part} part"
        for split, part in zip(splits, ("test", "validation"), strict=False)
        if split != part
    ]


def files_of(folder: Path) -> dict[str, list[Path]]:
    """Return split -> its files, of a folder of tables: ``train*`` and held-out splits, or all of them as one.

    ``train/`` and ``test/`` may also be folders of such files. Empty when the folder holds no tables.

    Raises:
        DataError: the files are of several kinds.
    """
    found: dict[str, list[Path]] = {}
    for split in ("train", *TESTS):
        files = [path for path in _tables(folder) if path.name.startswith(split)]
        inside = _tables(folder / split) if (folder / split).is_dir() else []
        if split == "val":  # validation* and valid* were counted under their own names
            files = [path for path in files if not path.name.startswith("valid")]
        if split == "valid":
            files = [path for path in files if not path.name.startswith("validation")]
        if files or inside:
            found[split] = files + inside
    if "train" not in found:
        found = {"": _tables(folder)}
    suffixes = {path.suffix.lower() for files in found.values() for path in files}
    if len(suffixes) > 1:
        raise DataError(f"{folder}: holds {' and '.join(sorted(suffixes))} files; keep one kind")
    return {split: files for split, files in found.items() if files}


def read_files(files: Mapping[str, list[Path]], where: Path) -> dict[str, Table]:
    """Return split -> table of local files of one kind.

    Raises:
        DataError: a file is empty or damaged, or the ``datasets`` library is missing.
    """
    for path in (path for paths in files.values() for path in paths):
        if not path.stat().st_size:
            raise DataError(f"{path}: the file is empty; at least one sample is needed")
    suffix = next(iter(files.values()))[0].suffix.lower()
    reader, options = READERS[suffix]
    names = {split or "rows": [str(path) for path in paths] for split, paths in files.items()}
    with _quiet() as library, tempfile.TemporaryDirectory() as cache:
        try:
            # In memory: the library's own cache would keep a second copy of the user's data on disk.
            tables = library.load_dataset(
                reader, data_files=names, cache_dir=cache, keep_in_memory=True, **options
            )
        except Exception as error:  # every reader raises its own
            if "corresponds to no data" in str(error):  # a CSV of a heading alone
                raise DataError(f"{where}: holds no samples; at least one is needed") from error
            raise DataError(
                f"{where}: cannot be read as {suffix[1:]} ({_reason(error)}); write it again"
            ) from error
    return {"" if split == "rows" else split: table for split, table in tables.items()}


def read_hub(name: str, config: str) -> dict[str, Table]:
    """Return split -> table of a dataset of the hub.

    Raises:
        DataError: it cannot be reached, does not exist, or needs ``data.config``.
    """
    with _quiet() as library:
        try:
            tables = library.load_dataset(name, config or None)
        except Exception as error:  # hub, network, and the readers behind them raise errors of any kind
            source = f"{name!r}" + (f" (data.config {config!r})" if config else "")
            raise DataError(
                f"data {source} cannot be loaded: it is neither a named dataset, nor a path here, nor a dataset the "
                f"hub gives ({_reason(error)}); check data.name, data.config and the network, or give the path of a "
                "downloaded copy"
            ) from error
    return dict(tables)


def _tables(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in READERS and not path.name.startswith(".")
    )


def _reason(error: BaseException) -> str:
    error = error.__cause__ or error
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


@contextmanager
def _quiet() -> Iterator[Any]:
    """Yield the library with its progress bars and notices off: sflam reports what matters."""
    # Read once, when the library is first imported: downloads are not reported to the hub.
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    try:
        import datasets
    except ImportError as error:
        raise DataError("tables are read by the datasets library; pip install 'sflam[train]'") from error
    library: Any = datasets
    logger, bars = logging.getLogger("datasets"), library.are_progress_bars_disabled()
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    library.disable_progress_bars()
    try:
        yield library
    finally:
        logger.setLevel(before)
        if not bars:
            library.enable_progress_bars()
