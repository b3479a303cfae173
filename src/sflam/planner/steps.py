"""The steps of a round at which devices wait for each other, as they are expected before any is drawn."""

from __future__ import annotations

from sflam.allocate.cell.problem import Problem
from sflam.config import Job
from sflam.cost.timing import Lockstep, expected_steps


def waited_steps(job: Job, problem: Problem, together: int | None) -> Lockstep:
    """Return the steps of a round as they are expected: of shares that are drawn, an even part in every one."""
    number = job.plan.local_steps if together is None else together
    return expected_steps(
        problem.workload,
        problem.each("local_steps"),
        len(problem),
        together=number if job.sampling == "global" else 0,
        one_by_one=answers_in_turn(job),
    )


def answers_in_turn(job: Job) -> bool:
    """Return whether a trunk that serves all answers a device before it hears the next one's second exchange."""
    practice = job.learn.practice
    return job.model.labels == "device" and practice.shared and practice.server_update == "sequential"
