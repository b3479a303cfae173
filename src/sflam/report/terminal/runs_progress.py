"""Progress of many runs on stderr: one live bar over all of them on a terminal, a plain line per run elsewhere."""

from __future__ import annotations

from typing import TextIO

from sflam.report.terminal.live_bar import LiveBar

OVER = ("finished", "done", "diverged", "failed")
"""The events that end a run."""


class RunsProgress(LiveBar):
    """Shows how far a comparison is; its :meth:`on_event` is what ``sflam.compare`` calls.

    Args:
        rounds: of all runs together; 0 where that is not known yet.
        runs: how many.
        stream: where to write; None is stderr.
    """

    def __init__(self, rounds: int, runs: int, *, stream: TextIO | None = None) -> None:
        self._rounds, self._runs = rounds, runs
        self._done: dict[str, int] = {}
        self._finished = 0
        after = "round {task.completed:.0f}/{task.total:.0f}"
        super().__init__("{task.fields[runs]}", after, stream=stream, total=rounds, runs=f"0/{runs} runs")

    def on_event(self, name: str, what: str, rounds: int) -> None:
        """Show what became of a run.

        Args:
            name: of the run.
            what: ``finished`` (it was already), ``resumed``, ``started``, ``round``, ``done``, ``diverged`` or
                ``failed``.
            rounds: how many it has done, or need not be done.
        """
        self._done[name] = rounds
        self._finished += what in OVER
        total, runs = sum(self._done.values()), f"{self._finished}/{self._runs} runs"
        how = f", {runs}, {total}/{self._rounds} rounds" if what == "done" else ""
        line = "" if what == "round" else f"{name}: {what}{how}"
        self.show(line, completed=total, runs=runs)
