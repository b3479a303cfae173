"""How many ranks can train a job together, and whether any can."""

from __future__ import annotations

from sflam.config import Job
from sflam.errors import ConfigError
from sflam.run.compatibility import check
from sflam.run.conditions import ON_RANKS


def check_ranks(job: Job, size: int) -> None:
    """Raise ConfigError where so many ranks cannot train a job together, or are more than a round has devices."""
    check(job, ON_RANKS)
    key = "fleet.selected" if job.fleet.selected else "fleet.devices"
    if size > (devices := job.fleet.asked or job.fleet.devices):
        raise ConfigError(
            f"{size} ranks are more than the devices of a round, {key} = {devices}; use at most {devices} ranks"
        )
