"""A share of a study is trained on one machine, and the folders of several machines become one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from sflam.compare.asked import expect_same, read_asked
from sflam.compare.comparison import holding
from sflam.compare.listing import FINISHED, LOST, Listed, StudyShare, listed
from sflam.compare.running import Failure, expect_jobs, ignore_event, run_all
from sflam.compare.study import Study
from sflam.compare.waiting import OnEvent
from sflam.errors import ConfigError, RunError
from sflam.files import writing

MOST_NAMED = 4
"""More runs that are missing are counted."""


def run_share(
    study: Study, folder: Path, share: StudyShare, *, jobs: int | None = 1, on_event: OnEvent = ignore_event
) -> tuple[list[Listed], dict[str, Failure]]:
    """Run what of a share is not finished yet.

    Args:
        study: what is compared.
        folder: holds a folder per run.
        share: which of its runs.
        jobs: runs at once; see :func:`sflam.compare.comparison.run_study`.
        on_event: called for every run.

    Returns:
        The runs of the share, as they are now, and those that failed: name -> why.

    Raises:
        ConfigError: something that was asked for cannot be, or no run is the share's.
        RunError: the folder cannot be written, or another comparison holds it.
    """
    expect_jobs(jobs)
    own = listed(study, folder, share)
    if not own:
        raise ConfigError(_nothing(study, folder, share))
    with holding(folder, study) as lock:
        failures = run_all([item.task for item in own], jobs, lock, on_event)
    return listed(study, folder, share), failures


def join(folders: Sequence[Path], out: Path) -> Study:
    """Copy the runs of one comparison, made in several folders, into a folder that holds them all.

    Args:
        folders: of the shares, two or more.
        out: made where it is not there; runs that are there stay.

    Returns:
        The comparison, to be run there, which trains nothing.

    Raises:
        ConfigError: the folders hold different comparisons.
        RunError: runs are in none of them, or a folder cannot be read or written.
    """
    if len(set(folders)) < 2:
        raise ConfigError("--join is given once; give every folder, each after its own --join")
    study = read_asked(folders[0])
    for folder in folders[1:]:
        expect_same(folders[0], study, folder, read_asked(folder))
    sources: dict[str, Path] = {}
    for folder in (out, *folders):
        for item in listed(study, folder):
            if item.state in (FINISHED, LOST):
                sources.setdefault(item.task.name, item.task.path)
    wanted = [item.task for item in listed(study, out)]
    if missing := [task.name for task in wanted if task.name not in sources]:
        named = ", ".join(missing[:MOST_NAMED])
        more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
        raise RunError(
            f"{len(missing)} of {len(wanted)} runs are in none of these folders: {named}{more}; finish their shards "
            "(sflam compare --list names what is missing), then join again"
        )
    with holding(out, study):
        for task in wanted:
            if not task.path.exists():
                _copy(sources[task.name], task.path)
    return study


def _copy(source: Path, target: Path) -> None:
    """Copy a run's folder, whole or not at all."""
    partial = target.with_name(f".{target.name}.partial")
    with writing(f"run folder {target}", "choose another with --out"):
        if partial.exists():
            shutil.rmtree(partial)
        shutil.copytree(source, partial)
        partial.rename(target)


def _nothing(study: Study, folder: Path, share: StudyShare) -> str:
    every = listed(study, folder)
    if share.only and not listed(study, folder, StudyShare(only=share.only)):
        return f"--only {share.only!r} is in the name of none of {len(every)} runs; see them with --list"
    return (
        f"--shard {share.number}/{share.of} holds no run: runs that learn the same stay together, and there are fewer "
        f"such groups than {share.of}; use fewer shards"
    )
