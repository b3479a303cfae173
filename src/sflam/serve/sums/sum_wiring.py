"""What a run with secure sums has beside the parts of any served run: its fleet, and the routes of the sums."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

from starlette.routing import Route

from sflam.learn.secure_fleet import SecureFleet
from sflam.learn.split_fleet import LocalFleet
from sflam.serve.fleet import RemoteFleet
from sflam.serve.ingress import Ingress
from sflam.serve.sums.open_sum import Sums
from sflam.serve.sums.sum_routes import sum_routes
from sflam.serve.sums.summed_fleet import SummedFleet


def wired_sums(
    local: LocalFleet, ingress: Ingress, run: str
) -> tuple[Callable[..., RemoteFleet], list[Route]]:
    """Return what makes the fleet of the other arguments of a :class:`RemoteFleet`, and the routes.

    Args:
        local: the job's fleet in one process, which a job with secure sums has as a :class:`SecureFleet`.
        ingress: what requests need.
        run: name of the run, as devices know it.
    """
    sums = ingress.sums = Sums()
    fleet = partial(SummedFleet, cast(SecureFleet, local), sums=sums, run=run)
    return fleet, sum_routes(ingress, sums)
