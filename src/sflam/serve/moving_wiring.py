"""What moves the cuts of a served job, built from its settings; and what cannot be served while they move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sflam.config import Job
from sflam.errors import ModelError
from sflam.learn.settings.repartition import OVERLOAD
from sflam.link.contract import Contract
from sflam.model.adapters import State
from sflam.model.verify import expect_equal
from sflam.records.history import RoundRecord
from sflam.run.assemble import Assembly
from sflam.serve.ingress import Ingress
from sflam.serve.moving import Moved, Moving
from sflam.serve.overload import Overload
from sflam.serve.planning import works_of
from sflam.serve.repartition import Repartition, cuts_allowed


def problems_of_moves(job: Job, *, browser: bool) -> list[str]:
    """Return a line for each option that does not go with cuts that move."""
    if not (job.repartition.moves and browser):
        return []
    return [
        f'--browser does not go with repartition.mode = "{job.repartition.mode}": a page keeps the job that it began '
        'with, so leave --browser out, or set repartition.mode = "off"'
    ]


def repartition_of(assembly: Assembly, file: Path, records: Sequence[RoundRecord]) -> Repartition | None:
    """Return which cuts the devices of a job have, with the moves that are kept in ``file``; None where none may move.

    Args:
        assembly: the job.
        file: of the moves.
        records: of the rounds done, to which those that follow are added.

    Raises:
        ConfigError: the audit of ``plan.least_leakage`` cannot be used.
        ModelError: the model cannot be measured, or its parts differ from the whole at a cut.
        ServeError: the file cannot be read.
    """
    job = assembly.job
    if not job.repartition.moves:
        return None
    allowed = cuts_allowed(job)
    if assembly.backbone.family.gates:  # found by structure: each cut is checked
        expect_equal(assembly.backbone, assembly.model, sorted({cut for cuts in allowed for cut in cuts}))
    overload = overload_of(assembly, allowed) if job.repartition.mode == OVERLOAD else None
    return Repartition(allowed, overload, file, records)


def overload_of(assembly: Assembly, allowed: Sequence[range]) -> Overload:
    """Return the rule by which devices of a job move; raises ModelError where its model cannot be measured."""
    try:
        work, own = works_of(assembly)
    except ModelError as error:
        raise ModelError(
            f'{error}; with repartition.mode = "overload" it must be, so set "ordered", or "off"'
        ) from None
    each = own or (work,) * len(allowed)
    return Overload(
        assembly.job.repartition,
        allowed,
        memory=lambda device, cut: each[device].device_memory[cut],
        flop=lambda device, cut: each[device].device_forward[cut] + each[device].device_backward[cut],
    )


def largest_body(contracts: Mapping[int, Contract], cuts: Repartition | None, state: State) -> int:
    """Return the bytes of the largest body that any device may have, whichever cut it is given.

    A run that goes on begins with the cuts that it had. Where they may move, each device is counted with all that is
    trained, the most there can be.

    Args:
        contracts: device -> what was agreed with it.
        cuts: which cut each device has; None where none may move.
        state: the global adapters.
    """
    most = sum(value.numel() for value in state.values()) if cuts else 0
    return max(replace(own, adapters=max(own.adapters, most)).largest() for own in contracts.values())


def moving_of(cuts: Repartition | None, fleet: Moved, ingress: Ingress, state: State) -> Moving | None:
    """Return what moves the cuts of a fleet, which has those in force then; None where none may move."""
    if cuts is None:
        return None
    found = Moving(cuts, fleet, ingress.job_changed)
    found.put(state)
    return found
