"""The runs of a study before any is trained: their folders, whether they are there, and who trains which."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from sflam.compare.charged_anew import learns, trained_once
from sflam.compare.running import DIVERGED
from sflam.compare.study import Study, tasks_of
from sflam.compare.variants import Variant
from sflam.compare.waiting import Waiting
from sflam.errors import ConfigError
from sflam.records.run_folder import RunFolder

FINISHED, BEGUN, LOST, TRAIN, CHARGE = "finished", "begun", "diverged", "to train", "to charge"
"""What a run is: it has a result, a part of its rounds, no finite ones, or nothing; the last, another run's rounds."""


@dataclass(frozen=True)
class StudyShare:
    """Which runs of a study are this machine's.

    Attributes:
        number: of the share, from 0.
        of: how many shares there are.
        only: a pattern of names, ``*`` and ``?`` standing for any letters; "" for all.
    """

    number: int = 0
    of: int = 1
    only: str = ""

    @classmethod
    def parse(cls, text: str | None, only: str | None) -> StudyShare:
        """Return the share of ``--shard i/n`` and ``--only``; raises ConfigError for one that cannot be."""
        if only is not None and not only.strip():
            raise ConfigError(
                "--only is empty; give a part of a line's or a folder's name, or a pattern with * and ?"
            )
        if text is None:
            return cls(only=only or "")
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None or int(match[1]) >= int(match[2]):
            raise ConfigError(f"--shard is {text!r}; give i/n with i from 0 to n - 1, for example 0/2")
        return cls(int(match[1]), int(match[2]), only or "")

    @property
    def whole(self) -> bool:
        """Whether it is all runs."""
        return self == StudyShare()

    def matches(self, *names: str) -> bool:
        """Return whether one of some names fits the pattern; a pattern without ``*`` and ``?`` fits anywhere."""
        pattern = self.only if re.search(r"[*?\[]", self.only) else f"*{self.only}*"
        return not self.only or any(fnmatchcase(name, pattern) for name in names)


@dataclass(frozen=True)
class Listed:
    """A run of a study.

    Attributes:
        task: the run.
        lines: what asks for it, each with the value of its axis.
        state: what it is in the folder.
    """

    task: Waiting
    lines: tuple[str, ...]
    state: str

    @property
    def digest(self) -> str:
        """Of the whole configuration, files by their content."""
        return self.task.name.rpartition("-")[2]

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        seed, there = self.task.job.seed, self.state == FINISHED
        known = {"run": self.task.name, "digest": self.digest, "lines": list(self.lines), "seed": seed}
        return known | {"state": self.state, "there": there}


def listed(study: Study, folder: Path, share: StudyShare | None = None) -> list[Listed]:
    """Return the runs that are a share's, in the order they are begun.

    A deterministic share of the whole list, whatever is there already: runs that learn the same, of which one is
    trained and the others charged anew, stay together. Of a study with a grid of rates these are the runs of the grid;
    the rest depend on which rates win.

    Raises:
        ConfigError: something that was asked for cannot be, or a share of a study whose runs depend on others'.
    """
    share = share or StudyShare()
    study.expect_possible()
    if study.rates is not None and not share.whole:
        raise ConfigError(
            "--shard and --only cannot go with --rates: which runs there are depends on the rate that wins, which all "
            "runs of the grid decide; run --rates whole, then give each method its learn.lr"
        )
    lines = study.lines() if study.rates is None else study.tries()
    tasks = tasks_of(lines, folder)
    names = _names(lines)
    groups: dict[str, int] = {}
    for task in tasks:
        groups.setdefault(learns(task.job) or task.name, len(groups))
    own = [
        task
        for task in tasks
        if groups[learns(task.job) or task.name] % share.of == share.number
        and share.matches(task.name, *names[task.name])
    ]
    charged = {task.name for task, _ in trained_once(own).rest}
    return [Listed(task, names[task.name], _state(task, task.name in charged)) for task in own]


def _names(lines: Sequence[Variant]) -> dict[str, tuple[str, ...]]:
    """Return run -> the lines that ask for it."""
    found: dict[str, dict[str, None]] = {}
    for line in lines:
        shown = f"{line.name} {line.axis}={line.value:g}" if line.axis else line.name
        for run in line.runs:
            found.setdefault(run, {})[shown] = None
    return {run: tuple(shown) for run, shown in found.items()}


def _state(task: Waiting, charged: bool) -> str:
    folder = RunFolder(task.path)
    if folder.result.is_file():
        return FINISHED
    if (task.path / DIVERGED).is_file():
        return LOST
    if folder.config.is_file():
        return BEGUN
    return CHARGE if charged else TRAIN
