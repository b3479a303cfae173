"""Progress of a run on stderr: a live bar on a terminal, one plain line per round elsewhere.

Nothing here writes to stdout, so ``--json`` and pipes stay clean.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self, TextIO

from rich import progress as rich_progress
from rich.console import Console, RenderableType
from rich.text import Text

from sflam.records.history import RoundRecord
from sflam.report.totals import decimal, percent
from sflam.units import human_bytes


class _Bar(rich_progress.Progress):
    """The bar with the last round's figures beneath it: one line would not fit eighty columns."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            yield Text(task.fields["figures"], style="dim", no_wrap=True, overflow="ellipsis")


class Progress:
    """Shows each finished round: ``with Progress(rounds) as progress: ... progress.update(record)``.

    Args:
        rounds: rounds of the whole run.
        resumed: records of the rounds done before a resume, counted in the bytes and the bar.
        quiet: show nothing at all.
        stream: where to write; None is stderr.
    """

    def __init__(
        self,
        rounds: int,
        *,
        resumed: Sequence[RoundRecord] = (),
        quiet: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self._rounds = rounds
        self._done = len(resumed)
        self._up = sum(item.bytes_up + item.adapter_bytes_up for item in resumed)
        self._down = sum(_down(item) for item in resumed)
        self._accuracy = next(
            (item.accuracy for item in reversed(resumed) if item.accuracy is not None), None
        )
        self._stream = stream if stream is not None else sys.stderr
        self._quiet = quiet
        self._bar: rich_progress.Progress | None = None
        console = Console(file=self._stream)
        # Not console.is_terminal: FORCE_COLOR makes a log file one.
        if self._stream.isatty() and not console.is_dumb_terminal and not quiet:
            self._bar = _Bar(
                rich_progress.TextColumn("round {task.completed:.0f}/{task.total:.0f}"),
                rich_progress.BarColumn(bar_width=None),
                rich_progress.TimeRemainingColumn(compact=True),
                console=console,
                expand=True,
            )
            self._task = self._bar.add_task("", total=rounds, completed=self._done, figures="first round")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def update(self, record: RoundRecord) -> None:
        """Show one finished round; an accuracy stays shown until the next evaluation."""
        self._done += 1
        self._up += record.bytes_up + record.adapter_bytes_up
        self._down += _down(record)
        if record.accuracy is not None:
            self._accuracy = record.accuracy
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, figures=self._figures(record, "  "))
        elif not self._quiet:
            print(
                f"round {self._done}/{self._rounds}: {self._figures(record, ', ')}",
                file=self._stream,
                flush=True,
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _figures(self, record: RoundRecord, separator: str) -> str:
        speed = record.device_steps / record.seconds if record.seconds > 0 else 0.0
        figures = [
            f"loss {decimal(record.loss)}",
            f"accuracy {percent(self._accuracy)}",
            f"{speed:.3g} steps/s" if speed < 1000 else f"{speed:.0f} steps/s",
            f"up {human_bytes(self._up)}",
            f"down {human_bytes(self._down)}",
        ]
        return separator.join(figures)


def _down(record: RoundRecord) -> int:
    """Return the bytes a round sent to the devices; the aggregation's correction is one of them."""
    return record.bytes_down + record.adapter_bytes_down + record.residual_bytes
