"""What a buffered run has in place of the parts of any served run, and which options it does without."""

from __future__ import annotations

from sflam.config import Job
from sflam.learn.staleness import BUFFERED
from sflam.serve.buffered.paced_dispatch import PacedDispatch
from sflam.serve.buffered.paced_session import PacedSession


def paced_dispatch(legs: int, patience: float) -> PacedDispatch:
    """Return where devices arrive that work at their own pace; see :class:`PacedSession`."""
    return PacedDispatch(PacedSession(legs=legs, patience=patience))


def problems_of_pace(job: Job, **options: float | None) -> list[str]:
    """Return a line for each option of rounds that end for all devices at once, where devices have their own pace.

    Args:
        job: the settings.
        options: name -> its value; None, or a quorum of 0, where it is not given.
    """
    if job.learn.sync != BUFFERED:
        return []
    return [
        f'--{name} is {value:g}; with learn.sync = "buffered" no device waits for others, so leave --{name} out'
        for name, value in options.items()
        if value is not None and (value or name != "quorum")
    ]
