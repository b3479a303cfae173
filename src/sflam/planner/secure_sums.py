"""What a secure sum of adapters adds to the bits of a round, by the bodies that travel."""

from __future__ import annotations

from dataclasses import replace

from sflam.config import Job
from sflam.secure.bodies import bytes_down, bytes_up
from sflam.secure.graph import degree
from sflam.workload import Workload

USUAL_WIDTH = 4
"""Bytes of a masked number where the samples of a round are not known."""


def with_sums(workload: Workload, job: Job, width: int = USUAL_WIDTH) -> Workload:
    """Return the workload of a job, with sums of adapters under masks where it has them.

    Args:
        workload: without.
        job: its settings.
        width: bytes of a masked number.
    """
    if not job.privacy.secure_aggregation:
        return workload
    others = degree(job.fleet.asked or job.fleet.devices, job.privacy.secure_threshold)
    return replace(workload, sum_width=width, sum_up=bytes_up(0, width, others), sum_down=bytes_down(others))
