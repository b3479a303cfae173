"""Progress of a run on stderr: a live bar on a terminal, one plain line per round elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from sflam.records.history import VALIDATION, RoundRecord
from sflam.report.terminal.live_bar import LiveBar
from sflam.report.totals import decimal, percent
from sflam.units import human_bytes


class Progress(LiveBar):
    """Shows each finished round: ``with Progress(rounds) as progress: ... progress.update(record)``.

    Args:
        rounds: rounds of the whole run.
        resumed: records of the rounds done before a resume, counted in the bytes and the bar.
        quiet: show nothing at all.
        stream: where to write; None is stderr.
        label: name of the run, where several run at once: each round is then a line, as a terminal has one bar.
    """

    def __init__(
        self,
        rounds: int,
        *,
        resumed: Sequence[RoundRecord] = (),
        quiet: bool = False,
        stream: TextIO | None = None,
        label: str = "",
    ) -> None:
        self._label = f"{label}: " if label else ""
        self._rounds, self._done = rounds, len(resumed)
        self._up = sum(item.bytes_up + item.adapter_bytes_up for item in resumed)
        self._down = sum(map(_down, resumed))
        known = [item for item in resumed if item.evaluated_accuracy is not None]
        self._evaluated = known[-1] if known else None
        super().__init__(
            "round {task.completed:.0f}/{task.total:.0f}",
            stream=stream,
            quiet=quiet,
            total=rounds,
            completed=self._done,
            beneath="first round",
            lines=bool(label),
        )

    def update(self, record: RoundRecord) -> None:
        """Show one finished round; an accuracy stays shown until the next evaluation."""
        self._done += 1
        self._up += record.bytes_up + record.adapter_bytes_up
        self._down += _down(record)
        if record.evaluated_accuracy is not None:
            self._evaluated = record
        last = self._evaluated
        words = "validation accuracy" if last and last.part == VALIDATION else "accuracy"
        speed = record.device_steps / record.seconds if record.seconds > 0 else 0.0
        figures = [
            f"loss {decimal(record.loss)}",
            f"{words} {percent(last.evaluated_accuracy if last else None)}",
            f"{speed:.3g} steps/s" if speed < 1000 else f"{speed:.0f} steps/s",
            f"up {human_bytes(self._up)}",
            f"down {human_bytes(self._down)}",
        ]
        line = f"{self._label}round {self._done}/{self._rounds}: {', '.join(figures)}"
        self.show(line, completed=self._done, beneath="  ".join(figures))


def _down(record: RoundRecord) -> int:
    """Return the bytes a round sent to the devices; the aggregation's correction is one of them."""
    return record.bytes_down + record.adapter_bytes_down + record.residual_bytes
