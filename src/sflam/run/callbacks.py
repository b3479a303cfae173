"""What is called while a run trains: derive from :class:`Callback`, for ``sflam.train(job, callbacks=[...])``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sflam.learn.watching import watching
from sflam.records.history import RoundRecord
from sflam.report.terminal.notebook_bar import in_kernel
from sflam.report.terminal.progress import Progress
from sflam.run.finish import Result
from sflam.run.run import Run


class Callback:
    """Is called while a run trains; every method may be left out.

    What a method raises ends the run, which can be resumed: the rounds before are on disk.
    """

    def began(self, run: Run) -> None:
        """Be called before the first round."""

    def stepped(self, round: int, device: int, loss: float, rows: int) -> None:
        """Be called after a device's mini-batch, in the order in which the server took them.

        Args:
            round: from 0.
            device: whose mini-batch it was; the first one where the samples of all are pooled.
            loss: mean over its rows, as ``learn.loss`` counts it.
            rows: of the mini-batch.
        """

    def evaluated(self, record: RoundRecord) -> None:
        """Be called after a round that was evaluated, before :meth:`ended_round`, with its accuracy and losses."""

    def ended_round(self, record: RoundRecord) -> None:
        """Be called after every round, which is then on disk."""

    def finished(self, result: Result) -> None:
        """Be called when the run folder is whole."""

    def stopped(self, error: BaseException) -> None:
        """Be called instead where the run ends early: by an error, which goes on, or by an interrupt."""


@contextmanager
def watched(callbacks: Sequence[Callback]) -> Iterator[None]:
    """Call :meth:`Callback.stopped` where what is done within ends early."""
    try:
        yield
    except BaseException as error:
        for each in callbacks:
            each.stopped(error)
        raise


@contextmanager
def stepping(run: Run, callbacks: Sequence[Callback]) -> Iterator[None]:
    """Call :meth:`Callback.stepped` for what is learned within."""

    def learned(device: int, loss: float, rows: int) -> None:
        for each in callbacks:
            each.stepped(len(run.records), device, loss, rows)

    with watching(learned):
        yield


def train_watched(run: Run, callbacks: Sequence[Callback]) -> None:
    """Run the rounds that are left, and call what watches them; a notebook shows how far they are."""
    for each in callbacks:
        each.began(run)
    shown = Progress(run.job.learn.rounds, resumed=run.records, quiet=not in_kernel())
    with shown, stepping(run, callbacks):
        for record in run.rounds():
            shown.update(record)
            for each in callbacks:
                if record.evaluated_accuracy is not None:
                    each.evaluated(record)
                each.ended_round(record)
