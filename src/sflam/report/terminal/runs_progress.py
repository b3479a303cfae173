"""Progress of many runs on stderr: one live bar over all of them on a terminal, a plain line per run elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self, TextIO

from rich import progress as rich_progress
from rich.console import Console

OVER = ("finished", "done", "diverged", "failed")
"""What is heard of a run that will not be heard of again."""


class Several:
    """Shows how far a comparison is; its :meth:`heard` is what ``sflam.compare`` tells.

    Args:
        rounds: of all runs together; 0 where that is not known yet.
        runs: how many.
        stream: where to write; None is stderr.
    """

    def __init__(self, rounds: int, runs: int, *, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._rounds, self._runs = rounds, runs
        self._done: dict[str, int] = {}
        self._finished = 0
        self._bar: rich_progress.Progress | None = None
        console = Console(file=self._stream)
        if self._stream.isatty() and not console.is_dumb_terminal:
            self._bar = rich_progress.Progress(
                rich_progress.TextColumn("{task.fields[runs]}"),
                rich_progress.BarColumn(bar_width=None),
                rich_progress.TextColumn("round {task.completed:.0f}/{task.total:.0f}"),
                rich_progress.TimeRemainingColumn(compact=True),
                console=console,
                expand=True,
            )
            self._task = self._bar.add_task("", total=rounds, runs=self._said())

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def heard(self, name: str, what: str, rounds: int) -> None:
        """Show what became of a run.

        Args:
            name: of the run.
            what: ``finished`` (it was already), ``resumed``, ``started``, ``round``, ``done``, ``diverged`` or
                ``failed``.
            rounds: how many it has done, or need not be done.
        """
        self._done[name] = rounds
        self._finished += what in OVER
        total = sum(self._done.values())
        if self._bar is not None:
            self._bar.update(self._task, completed=total, runs=self._said())
        elif what == "done":
            print(
                f"{name}: done, {self._said()}, {total}/{self._rounds} rounds", file=self._stream, flush=True
            )
        elif what != "round":
            print(f"{name}: {what}", file=self._stream, flush=True)

    def _said(self) -> str:
        return f"{self._finished}/{self._runs} runs"
