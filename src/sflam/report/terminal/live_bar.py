"""Progress: a bar that is redrawn where a person watches a terminal or a notebook, plain lines on stderr elsewhere.

Nothing here writes to stdout, so ``--json`` and pipes stay clean.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from types import SimpleNamespace, TracebackType
from typing import Any, Self, TextIO

from rich import progress
from rich.console import Console, RenderableType
from rich.text import Text

from sflam.report.terminal.notebook_bar import NotebookBar, in_kernel

NOTEBOOKS = ("JPY_PARENT_PID", "COLAB_RELEASE_TAG")
"""Set in a notebook, where ``!command`` has a pseudo-terminal that keeps every frame."""


def animates(stream: TextIO) -> bool:
    """Return whether a line on ``stream`` can be redrawn."""
    # Not rich's is_terminal: FORCE_COLOR makes a log file one.
    dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
    return stream.isatty() and not dumb and not any(os.environ.get(name) for name in NOTEBOOKS)


class _Bar(progress.Progress):
    """A bar with a line beneath it: one line would not fit eighty columns."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if beneath := task.fields.get("beneath"):
                yield Text(beneath, style="dim", no_wrap=True, overflow="ellipsis")


class LiveBar:
    """A bar over a count, or nothing where it cannot be redrawn; a context manager.

    Args:
        before: what stands before the bar, with fields of its task.
        after: what stands behind it.
        stream: where to write; None is stderr, or the cell of a notebook whose kernel this is.
        quiet: show nothing at all.
        lines: write lines wherever it is.
        fields: of the task: ``total``, ``completed``, ``beneath`` and what ``before`` and ``after`` name.
    """

    def __init__(
        self,
        before: str,
        after: str = "",
        *,
        stream: TextIO | None = None,
        quiet: bool = False,
        lines: bool = False,
        **fields: Any,
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._quiet = quiet
        self._bar: _Bar | None = None
        self._cell: NotebookBar | None = None
        if quiet or lines:
            return
        if stream is None and in_kernel():
            self._cell, self._words, self._fields = NotebookBar(), f"{before} {after}".rstrip(), fields
        elif animates(self._stream):
            columns = [progress.TextColumn(before), progress.BarColumn(bar_width=None)]
            columns += [progress.TextColumn(after)] if after else []
            console = Console(file=self._stream, force_jupyter=False)
            self._bar = _Bar(
                *columns, progress.TimeRemainingColumn(compact=True), console=console, expand=True
            )
            self._task = self._bar.add_task("", **fields)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        self._show_cell()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._show_cell(last=True)

    def show(self, line: str = "", **fields: Any) -> None:
        """Redraw the bar with new fields; without a bar write ``line``, if there is one."""
        if self._bar is not None:
            self._bar.update(self._task, **fields)
        elif self._cell is not None:
            self._fields |= fields
            self._show_cell()
        elif line:
            self.write(line)

    def write(self, line: str) -> None:
        """Write a line of its own."""
        if self._bar is not None:
            self._bar.console.print(line, highlight=False)
        elif not self._quiet:
            print(line, file=self._stream, flush=True)

    def _show_cell(self, *, last: bool = False) -> None:
        if self._cell is not None:
            known: dict[str, Any] = {"completed": 0, "total": 0, "beneath": ""} | self._fields
            task = SimpleNamespace(completed=known["completed"], total=known["total"], fields=self._fields)
            words = self._words.format(task=task)
            self._cell.show(words, known["beneath"], known["completed"], known["total"], last=last)
