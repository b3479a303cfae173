"""A run of a comparison, and how its progress is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sflam.config import Job

OnEvent = Callable[[str, str, int], None]
"""Called with the name of a run, an event (``finished``, ``resumed``, ``started``, ``round``, ``done``,
``diverged``, ``failed``), and the rounds it has done; for a run that is over, all: none is left to do."""


@dataclass(frozen=True)
class Waiting:
    """One run.

    Attributes:
        name: of the run, and of its folder.
        job: what is trained.
        path: its folder.
    """

    name: str
    job: Job
    path: Path
