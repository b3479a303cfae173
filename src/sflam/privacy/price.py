"""What the planner says of a cut and a width: seconds and joules of a round. Noise changes neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sflam.config import Job
from sflam.errors import SflamError
from sflam.planner.cell import decide
from sflam.privacy.audit import Cell
from sflam.run.compatibility import check
from sflam.run.conditions import PLAN
from sflam.sizes import IDENTITY

CHOICES = ("bits", "bits_down", "cut", "tuned")
"""What a plan may choose, and what is given here."""


def prices(job: Job, cells: Sequence[Cell]) -> tuple[dict[Cell, tuple[float, float]], str]:
    """Return latency in s and energy in J of a planned round for each cell, and why there are none, if so."""
    found: dict[tuple[int, int | None], tuple[float, float]] = {}
    try:
        for cut, bits, _ in cells:
            if (cut, bits) not in found:
                asked = _at(job, cut, bits)
                check(asked, PLAN)
                plan = decide(asked).plan
                found[cut, bits] = plan.latency, plan.energy
    except SflamError as error:
        return {}, f"no latency and energy: {error}"
    return {cell: found[cell[:2]] for cell in cells}, ""


def _at(job: Job, cut: int, bits: int | None) -> Job:
    """Return the job with a cut and a width of activations for all devices."""
    quant = (
        replace(job.quant, scheme=IDENTITY, adapters_scale="own")
        if bits is None
        else replace(job.quant, bits_up=bits)
    )
    wanted = tuple(each for each in job.plan.optimize if each not in CHOICES)
    return replace(
        job,
        model=replace(job.model, cut=cut),
        fleet=replace(job.fleet, cuts=(), bits_up=(), bits_down=()),
        quant=quant,
        plan=replace(job.plan, optimize=wanted),
    )
