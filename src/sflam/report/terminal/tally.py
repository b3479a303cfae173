"""Progress of anything that is counted, on stderr: a live bar on a terminal, a line per tenth elsewhere."""

from __future__ import annotations

from typing import TextIO

from sflam.report.terminal.live_bar import LiveBar


class Tally(LiveBar):
    """Shows how many are done: ``with Tally("training") as tally: ... tally.count(done, total)``.

    Args:
        what: is counted.
        stream: where to write; None is stderr.
    """

    def __init__(self, what: str, *, stream: TextIO | None = None) -> None:
        self._what, self._tenth = what, 0
        super().__init__(f"{what} {{task.completed:.0f}}/{{task.total:.0f}}", stream=stream, total=1)

    def count(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` are done."""
        tenth = 10 * done // total
        self.show(f"{self._what} {done}/{total}" * (tenth > self._tenth), completed=done, total=total)
        self._tenth = max(tenth, self._tenth)
