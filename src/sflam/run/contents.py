"""What the files that a job names hold: jobs are equal by content, wherever their data and models lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from sflam.config import Job, digest
from sflam.data.sources import DATASETS
from sflam.files import CHUNK_BYTES, reading, visible_files
from sflam.model.backbone import BUNDLED
from sflam.run.follow_plan import COMPUTED, MEASURED

PLACES = (
    ("data", "name"),
    ("data", "indices"),
    ("model", "name"),
    ("model", "adapter"),
    ("network", "trace"),
    ("fleet", "plan"),
    ("plan", "least_leakage"),
)
"""Section and key of what may be a path; a name that is no path here is equal by its name."""
MOVABLE = {"data.name", "data.indices", "model.name", "model.adapter", "network.trace", "plan.least_leakage"}
"""Of these, what a run that was begun reads again; its plan it has."""
NAMED = {"", *DATASETS, *BUNDLED, COMPUTED, MEASURED}
"""Values of those keys that are no path, whatever the working directory holds."""


def contents_of(job: Job) -> dict[str, str]:
    """Return path -> digest of its content, for every file or folder that a job names and that is there.

    Raises:
        RunError: one of them cannot be read.
    """
    found = {}
    for text in _places(job).values():
        path = Path(text).expanduser()
        if text not in NAMED and path.exists():
            found[text] = content(path)
    return found


def content_digest(job: Job, known: Mapping[str, str] | None = None) -> str:
    """Return twelve hexadecimal digits that are equal for jobs that are, but for where their files lie.

    Args:
        job: without a path it has the digest of :func:`sflam.config.digest`.
        known: path -> digest of its content; None looks at the files.

    Raises:
        RunError: a file cannot be read.
    """
    return digest(by_content(job, contents_of(job) if known is None else known))


def by_content(job: Job, known: Mapping[str, str]) -> Job:
    """Return a job that names contents where it names paths."""
    marked = {place: f"sha256:{known[text]}" for place, text in _places(job).items() if text in known}
    return _replaced(job, marked)


def at_places_of(job: Job, other: Job) -> Job:
    """Return a job with the paths of another one whose files hold the same."""
    places = _places(other)
    return _replaced(job, {place: text for place, text in places.items() if ".".join(place) in MOVABLE})


def content(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files and their names but for hidden ones.

    Raises:
        RunError: it cannot be read.
    """
    with reading(path, "check the disk and its permissions"):
        marks = tuple(_marks(path))
        return _hashed(str(path.absolute()), marks)


def _marks(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield name, size and time of every file, by which a file that changes is noticed."""
    for name in _files(path):
        known = (path / name).stat()
        yield name, known.st_size, known.st_mtime_ns


def _files(path: Path) -> list[str]:
    """Return the names of the files within a folder, sorted; of a file an empty one."""
    if not path.is_dir():
        return [""]
    return sorted(each.relative_to(path).as_posix() for each in visible_files(path))


@lru_cache(maxsize=256)
def _hashed(place: str, marks: tuple[tuple[str, int, int], ...]) -> str:
    """Return the digest of what is at a place; ``marks`` make it be read again where it changed."""
    names, path = [name for name, _, _ in marks], Path(place)
    if names == [""]:
        return _of_file(path)
    whole = hashlib.sha256()
    for name in names:
        whole.update(f"{name}\0{_of_file(path / name)}\n".encode())
    return whole.hexdigest()


def _of_file(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            found.update(piece)
    return found.hexdigest()


def _places(job: Job) -> dict[tuple[str, str], str]:
    return {(section, key): getattr(getattr(job, section), key) for section, key in PLACES}


def _replaced(job: Job, texts: Mapping[tuple[str, str], str]) -> Job:
    sections: dict[str, Any] = {}
    for (section, key), text in texts.items():
        sections[section] = replace(sections.get(section, getattr(job, section)), **{key: text})
    return replace(job, **sections)
