"""What theory promises of a run, beside what its training does: the run is trained once more and watched on the way."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sflam.config import Job
from sflam.errors import ConfigError
from sflam.learn.methods import method_of
from sflam.learn.split_fleet import LocalFleet
from sflam.records.history import RoundRecord
from sflam.records.run_folder import RunFolder
from sflam.run.run import Run
from sflam.run.start import start
from sflam.simulate.convergence import PathPoint, compared, look
from sflam.sizes import IDENTITY, is_variable

Seen = Callable[[int, int], None]


def theory_of(
    folder: Path, *, every: int, batches: int, seen: Seen = lambda done, total: None
) -> dict[str, Any]:
    """Train the run in ``folder`` once more, elsewhere, and return the bound (2.14) beside its gradients.

    Args:
        folder: of the run; nothing in it changes.
        every: rounds between two measurements; before the first round and after the last there is one anyway.
        batches: mini-batches of every device in a measurement.
        seen: called with the rounds done, and all.

    Returns:
        What :func:`sflam.simulate.convergence.compared` does.

    Raises:
        ConfigError: a run whose activations do not cross quantized without bias, or numbers out of range.
        RunError: the folder holds no run.
    """
    if every < 1 or batches < 3:
        raise ConfigError(
            f"--every is {every} and --batches {batches}; give --every of at least 1 and --batches of at least 3, "
            "which a variance and its error need"
        )
    job = RunFolder(folder).read_job()
    _expect_theory(job)
    with tempfile.TemporaryDirectory(prefix="sflam-theory-") as place:
        run = start(job, Path(place) / "run")
        halves = run.assembly.halves
        assert halves is not None, "what is quantized is cut"
        return _watched(run, halves, every, batches, seen)


def _expect_theory(job: Job) -> None:
    """Raise ConfigError for a run that (2.14) does not describe."""
    method = method_of(job)
    if not (method.split and method.quantized):
        raise ConfigError(
            f'learn.method = "{job.learn.method}" sends no quantized activations, which the bound is about; give a '
            'run of a split method such as "sflam"'
        )
    if is_variable(job.quant.scheme):
        raise ConfigError(
            f'the bound is that of unbiased noise, and quant.scheme = "{job.quant.scheme}" leaves values out; give a '
            'run with "uniform", "rotated" or "identity"'
        )
    if job.model.labels == "device":
        raise ConfigError(
            'model.labels = "device" sends activations in both directions, and the bound is about one; give a run with '
            'labels = "server"'
        )
    if job.privacy.on:
        raise ConfigError(
            "[privacy] clips what crosses the cut, and the bound is that of unbiased noise; give a run without"
        )
    if job.quant.delta:
        raise ConfigError(
            "quant.delta = true rounds differences between activations, and noise is measured as that of whole ones; "
            "give a run without"
        )


def _watched(run: Run, fleet: LocalFleet, every: int, batches: int, seen: Seen) -> dict[str, Any]:
    """Train, measure on the way, and compare."""
    total, steps = run.job.learn.rounds, 0.0
    points: list[PathPoint] = [look(fleet, run.state, steps=0, batches=batches)]
    bits: list[list[float]] = []
    seen(0, total)
    looked = True
    for record in run.rounds():
        steps += record.device_steps / max(len(record.participants), 1)
        bits.append(_bits(run.job, record))
        looked = (record.round + 1) % every == 0
        if looked:
            points.append(look(fleet, run.state, steps=round(steps), batches=batches))
        seen(record.round + 1, total)
    if not looked:  # also where training stops early
        points.append(look(fleet, run.state, steps=round(steps), batches=batches))
    quantized = run.job.quant.scheme != IDENTITY
    return compared(points, [len(part) for part in fleet.parts], bits if quantized else ())


def _bits(job: Job, record: RoundRecord) -> list[float]:
    """Return [K] the widths up of a round; of those that stayed away, what they would have had; inf where a device
    trains alone and sends nothing."""
    placed = [math.inf if placement.alone else float(placement.bits_up) for placement in job.placements]
    if record.charge is not None:
        for device, width in zip(record.participants, record.charge.bits_up, strict=True):
            placed[device] = width or math.inf
    return placed
