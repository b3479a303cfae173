"""How many ranks can train a job together, and whether any can."""

from __future__ import annotations

from sflam.config import Job
from sflam.errors import ConfigError
from sflam.model.settings import OVER_RANKS
from sflam.run.compatibility import check
from sflam.run.conditions import ON_RANKS


def check_lenders(job: Job) -> None:
    """Raise ConfigError where other ranks have nothing to lend to a server."""
    if job.model.trunk_weights != OVER_RANKS:
        raise ConfigError(
            f'model.trunk_weights = "{job.model.trunk_weights}" leaves nothing for the other ranks of a server to do; '
            'set model.trunk_weights = "ranks", or serve on one rank, without --ranks and torchrun'
        )


def check_ranks(job: Job, size: int) -> None:
    """Raise ConfigError where so many ranks cannot train a job together, or are more than a round has devices."""
    check(job, ON_RANKS)
    key = "fleet.selected" if job.fleet.selected else "fleet.devices"
    if size > (devices := job.fleet.asked or job.fleet.devices):
        raise ConfigError(
            f"{size} ranks are more than the devices of a round, {key} = {devices}; use at most {devices} ranks"
        )
