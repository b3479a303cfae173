"""One of several jobs in a thread of its own, to its result; where it fails, the others go on."""

from __future__ import annotations

from collections.abc import Callable

from sflam.errors import SflamError
from sflam.records.history import RoundRecord
from sflam.run.finish import Result
from sflam.serve.fleet import Stopped
from sflam.serve.serve import LINGER, Served
from sflam.serve.several.job_standing import JobStanding
from sflam.serve.several.turns import Turns

ENDED, FAILED, STOPPED = "ended", "failed", "stopped"


class HostedJob:
    """A job of the process.

    Args:
        name: of the job.
        served: it.
        turns: whose turn it is to compute.

    Attributes:
        state: how it left, or "" while it is served.
        error: why it failed.
        bug: what it failed with, where that is no error that a user can cause.
        result: of the run that has ended.
    """

    def __init__(self, name: str, served: Served, turns: Turns) -> None:
        self.name, self.served, self.turns = name, served, turns
        self.state = self.error = ""
        self.bug: Exception | None = None
        self.result: Result | None = None

    def run(self, shown: Callable[[str, RoundRecord], None]) -> None:
        """Run the job to its end; ``shown`` is given its name and every round."""
        served = self.served
        try:
            with self.turns.mine():
                for record in served.conducted():
                    shown(self.name, record)
                served.end()
                self.result = served.run.finish()
            self.state = ENDED
            served.dispatch.wait_informed(LINGER)
        except Stopped as error:
            self._leave(STOPPED, error)
        except SflamError as error:
            self.error = " ".join(str(error).split())
            self._leave(FAILED, error)
        except Exception as error:  # shown in full once the other jobs are done
            self.bug, self.error = error, f"{type(error).__name__}: {error}"
            self._leave(FAILED, error)

    def standing(self) -> JobStanding:
        """Return how it stands."""
        served = self.served
        with served.dispatch.looked() as session:
            phase, present = session.phase.value, len(session.present(served.dispatch.clock()))
        paused = served.ingress.orders.paused and phase == "waiting"
        board = served.board
        return JobStanding(
            name=self.name,
            state=self.state or served.dispatch.doing or ("paused" if paused else phase),
            error=self.error,
            done=len(board.records),
            rounds=board.rounds,
            present=present,
            places=len(served.ingress.contracts),
            accuracy=board.accuracy,
            loss=board.loss,
        )

    def _leave(self, state: str, error: BaseException) -> None:
        self.state = state
        self.served.board.error = self.error
        if state == FAILED:
            self.served.dispatch.doing = FAILED
        self.served.give_up(error)
