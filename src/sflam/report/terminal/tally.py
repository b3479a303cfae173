"""Progress of anything that is counted, on stderr: a live bar on a terminal, a line per tenth elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self, TextIO

from rich import progress
from rich.console import Console


class Tally:
    """Shows how many are done: ``with Tally("training") as tally: ... tally.show(done, total)``.

    Args:
        what: is counted.
        stream: where to write; None is stderr.
    """

    def __init__(self, what: str, *, stream: TextIO | None = None) -> None:
        self._what = what
        self._stream = stream if stream is not None else sys.stderr
        self._tenth = 0
        self._bar: progress.Progress | None = None
        console = Console(file=self._stream)
        if self._stream.isatty() and not console.is_dumb_terminal:
            self._bar = progress.Progress(
                progress.TextColumn(f"{what} {{task.completed:.0f}}/{{task.total:.0f}}"),
                progress.BarColumn(bar_width=None),
                progress.TimeRemainingColumn(compact=True),
                console=console,
                expand=True,
            )
            self._task = self._bar.add_task("", total=1)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def show(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)
        elif 10 * done // total > self._tenth:
            self._tenth = 10 * done // total
            self.say(f"{self._what} {done}/{total}")

    def say(self, line: str) -> None:
        """Show a line of its own."""
        if self._bar is not None:
            self._bar.console.print(line, highlight=False)
        else:
            print(line, file=self._stream, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
