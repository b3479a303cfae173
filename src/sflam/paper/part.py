"""A part of a study of papers: it runs what is not there yet, and answers with arms, their numbers, and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from sflam.paper.claim import Measured
from sflam.report.charts.figure import Panel

OnLine = Callable[[str], None]
"""Called with a line of progress."""


def ignore_line(line: str) -> None:
    """Ignore a line of progress."""


class Drawn(NamedTuple):
    """Panels of one figure, and what their error bars are."""

    panels: Sequence[Panel]
    note: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a part measured.

    Attributes:
        measured: arm -> metric -> values by seed, SI units.
        figures: name of a file without suffix -> its panels.
        head: of its table.
        rows: of its table.
        caption: of its table: means over what, and what ± is.
        failed: a line for each thing that failed and is left out.
    """

    measured: Measured
    figures: Mapping[str, Drawn]
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PartWork:
    """What a part still has to do.

    Attributes:
        part: its name.
        what: what its units are, as "runs".
        states: state -> how many units are in it, as "finished" or "to train".
        seconds: estimated CPU seconds of what is not there yet.
        why: the reason why it cannot be run here, if so.
    """

    part: str
    what: str = ""
    states: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    why: str = ""


class Part(Protocol):
    """A part of a study file."""

    @property
    def name(self) -> str:
        """Its name in the file."""
        ...

    @property
    def title(self) -> str:
        """What it measures, for people."""
        ...

    @property
    def place(self) -> str:
        """The folder of its results, within the study's; several parts may share one."""
        ...

    def run(self, folder: Path, on_line: OnLine, jobs: int | None) -> Outcome:
        """Run what is not there yet; raises SflamError where nothing can be measured."""
        ...

    def work(self, folder: Path) -> PartWork:
        """Return what is there and what is not; raises SflamError where that cannot be known."""
        ...
