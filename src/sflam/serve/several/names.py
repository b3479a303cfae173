"""What jobs of one process are called: the name is in the address that their devices join, and names their folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sflam.errors import ConfigError, SflamError

LONGEST = 40
JOBS = "jobs.json"
"""In a folder of several runs: their names, in the order in which they were given."""
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{LONGEST - 1}}}")


def named_jobs(files: Iterable[Path]) -> dict[str, Path]:
    """Return name -> job file, the name being the file's without its suffix.

    Raises:
        ConfigError: a name that no address can hold, or that two files have; upper and lower case are one name.
    """
    named: dict[str, Path] = {}
    problems = []
    for file in files:
        name = file.stem
        taken = {other.casefold(): path for other, path in named.items()}
        if not NAME.fullmatch(name):
            problems.append(
                f"job file {file}: its name {name[: 2 * LONGEST]!r} is to be in an address; rename the file: letters, "
                f"digits, - and _, a letter or digit first, {LONGEST} at most"
            )
        elif name.casefold() in taken:
            problems.append(
                f"job files {taken[name.casefold()]} and {file} have one name, {name!r}; rename one of them"
            )
        else:
            named[name] = file
    if problems:
        raise ConfigError(problems)
    return named


def holds_several(folder: Path) -> bool:
    """Return whether a folder is one of several runs, served together."""
    return os.path.isfile(folder / JOBS)  # unlike Path, False for a name that cannot exist


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Name the job in what is raised."""
    try:
        yield
    except SflamError as error:
        own = error.problems if isinstance(error, ConfigError) else [str(error)]
        raise ConfigError([f"{name}: {problem}" for problem in own]) from error


def own_file(path: Path, name: str) -> Path:
    """Return the file of one job where ``path`` is that of a server of one: devices.json, devices-NAME.json."""
    return path.with_name(f"{path.stem}-{name}{path.suffix}")
