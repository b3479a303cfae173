"""Bits and cuts of devices that wait for each other: choices that are best for chains, and others, solved exactly.

A round in which devices wait is never shorter than its longest chain at the same shares, so that what bounds all
choices for chains bounds them here too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from sflam.allocate.cell.optimal import Optimum, settle
from sflam.allocate.cell.problem import Problem
from sflam.allocate.limits import Impossible
from sflam.allocate.referee import Found


def best_of(choices: Iterable[Problem], chains: Found, what: str) -> Found:
    """Return the best of the optima of several problems.

    Args:
        choices: the problem at each choice.
        chains: what was found for devices that do not wait.
        what: is chosen.

    Raises:
        Impossible: none of the choices holds the limits.
    """
    tried: list[tuple[float, Problem, Optimum]] = []
    for here in choices:
        with contextlib.suppress(Impossible):
            found = settle(here)
            tried.append((here.total(found.objective), here, found))
    if not tried:
        raise Impossible(
            f"none of the {what} that were tried holds the limits, as devices wait for each other at every step; relax "
            f"a limit, or set {what} yourself"
        )
    total, best, found = min(tried, key=lambda each: each[0])
    return Found(
        problem=best,
        shares=found.shares,
        lower_bound=chains.lower_bound,
        advice=(f"the bound on {what} is that of devices that do not wait for each other",),
        history=(total,),
        shadow_prices=found.worth(),
    )
