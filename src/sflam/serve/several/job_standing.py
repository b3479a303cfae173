"""How one of several jobs stands: what the page and the table of them show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class JobStanding:
    """How a job stands, as the page shows it.

    Attributes:
        name: of the job.
        state: ``waiting``, ``open``, ``paused``, ``ended``, ``failed`` and so on.
        error: why it failed; "" where it did not.
        done: rounds done.
        rounds: of all.
        present: devices heard of lately.
        places: devices of the job.
        accuracy: the last one measured, in [0, 1].
        loss: of the last round.
        served: whether this process serves it: one that had ended before is shown alone.
    """

    name: str
    state: str
    error: str
    done: int
    rounds: int
    present: int
    places: int
    accuracy: float | None
    loss: float | None
    served: bool = True
