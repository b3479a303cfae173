"""From an assembled job to the planner of its served rounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sflam.data.sampling import most_rows
from sflam.errors import ModelError
from sflam.learn.aggregate import trained_numbers
from sflam.learn.personal import travelling
from sflam.learn.split_fleet import LocalFleet
from sflam.planner.calibration import rates_in
from sflam.run.assemble import Assembly
from sflam.run.follow_plan import MEASURED
from sflam.serve.round_planner import RoundPlanner
from sflam.simulate.work import work_of, work_of_each
from sflam.workload import Workload


def works_of(assembly: Assembly) -> tuple[Workload, tuple[Workload, ...]]:
    """Return what a mini-batch costs, and what it costs each device, where ranks or tuned blocks differ.

    Raises:
        ModelError: the model cannot be measured.
    """
    job, train = assembly.job, assembly.splits.train
    numbers = trained_numbers(travelling(assembly.state, job.learn.personal), job.learn.practice.aggregation)
    rows = most_rows([len(part) for part in assembly.parts], job.learn.batch, job.fleet.asked, job.sampling)
    return work_of(job, train, numbers, rows), work_of_each(job, train, numbers, rows)


def planner_of(
    assembly: Assembly, local: LocalFleet, file: Path, notify: Callable[[str], None] = lambda line: None
) -> RoundPlanner | None:
    """Return the planner of a job's served rounds, whose plan is kept in ``file``.

    A job whose model cannot be measured has none: nothing is expected of its rounds.

    Raises:
        ModelError: it cannot, and its rounds are to be planned.
    """
    job = assembly.job
    try:
        work, own = works_of(assembly)
    except ModelError as error:
        if job.fleet.plan == MEASURED:
            raise
        notify(f"what rounds take is not predicted: {error}")
        return None
    together = local.learn.canonical or local.learn.practice.shared or local.sampling == "global"
    prior = rates_in(job, work, own, local.devices.cuts)
    return RoundPlanner(job, work, own, local.devices.cuts, file, prior, together=together)
