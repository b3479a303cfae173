"""A buffered run made again from its trace: the record of which updates came, simulated or served.

Updates are trained from the versions that their devices downloaded, with the draws of their own cycles, and make the
versions that they made (:mod:`sflam.learn.versions`). Neither clock nor network is asked. What comes of it is held
against the adapters in the run's newest checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sflam.config import Job
from sflam.errors import RunError
from sflam.learn import checkpoint
from sflam.learn.evaluate import Score
from sflam.learn.round import train
from sflam.learn.staleness import BUFFERED
from sflam.learn.versions import RecordedVersions, buffers_of
from sflam.model.adapters import State
from sflam.records import history
from sflam.records.buffer import Buffer
from sflam.records.history import RoundRecord
from sflam.records.run_folder import RunFolder
from sflam.run.assemble import assemble
from sflam.run.conditions import SERVE, SIMULATE
from sflam.run.contents import at_places_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Retraced:
    """A run that was trained again from its trace.

    Attributes:
        records: of its versions, without charges and scores.
        state: its adapters, by peft's names.
        difference: the largest between a number of these and of those that the run has; 0 where all are equal, bit for
            bit.
    """

    records: tuple[RoundRecord, ...]
    state: State
    difference: float


def retrace(folder: str | Path, places: Job | None = None) -> Retraced:
    """Train a buffered run again from its trace; nothing in its folder changes.

    Args:
        folder: of the run, as far as it is.
        places: a job that names where the run's data and model lie now; None where they lay.

    Raises:
        RunError: no run, one that is not buffered, or one whose trace is not that of its job.
    """
    run = RunFolder(Path(folder))
    job = run.read_job()
    if places is not None:
        job = at_places_of(job, places)
    if job.learn.sync != BUFFERED:
        raise RunError(
            f'{run.path} has learn.sync = "{job.learn.sync}": only buffered rounds keep which updates came; train it '
            "again with sflam train"
        )
    kept = checkpoint.load(run.checkpoints)
    if kept is None or not kept["round"]:
        raise RunError(
            f"{run.path} has no version yet whose adapters could be compared; let it make one first"
        )
    _, records = history.read(run.history)
    buffers = buffers_of(records)
    versions = int(kept["round"])
    expect_trace(job, buffers, versions)
    served = any(record.measured is not None for record in records)
    there = assemble(job, command=SERVE if served else SIMULATE)
    assert there.halves is not None, "run.compatibility refuses a method without a cut"
    fleet = RecordedVersions(there.halves, buffers)
    # A simulation lets those make their steps together that began alike; over a network each makes its own.
    fleet.together = not served
    made = list(train(fleet, there.state, lambda _: Score(0.0, 0.0), range(versions)))
    state, wanted = made[-1][1], kept["adapters"]
    return Retraced(
        records=tuple(record for record, _ in made), state=state, difference=largest_difference(state, wanted)
    )


def expect_trace(job: Job, buffers: Mapping[int, Buffer], versions: int) -> None:
    """Raise RunError where ``buffers``, version -> its updates, cannot be what came to a job's ``versions``."""
    problems, size, seen = [], job.learn.buffer or job.fleet.devices, set[tuple[int, int]]()
    if missing := [version + 1 for version in range(versions) if version not in buffers]:
        problems.append(f"it has no updates of version {missing[0]}")
    for version, found in sorted(buffers.items()):
        devices = found.devices + found.refused
        behind = found.staleness + found.refused_staleness
        numbers = found.numbers + found.refused_numbers
        if len(found.devices) != size:
            problems.append(
                f"version {version + 1} is of {len(found.devices)} updates, and learn.buffer is {size}"
            )
        if len(numbers) != len(devices) or len(behind) != len(devices):
            problems.append(f"version {version + 1} does not say which cycle of its device every update was")
            continue
        for device, tau, number in zip(devices, behind, numbers, strict=True):
            if not 0 <= device < job.fleet.devices:
                problems.append(f"device {device} is none of the {job.fleet.devices} of fleet.devices")
            if not 0 <= tau <= version:
                problems.append(f"an update of version {version + 1} is {tau} versions behind")
            if (device, number) in seen:
                problems.append(f"cycle {number} of device {device} came twice")
            seen.add((device, number))
    if problems:
        raise RunError(
            f"the trace is not of this job: {problems[0]}; give the folder of the run as it was written"
        )


def largest_difference(state: State, wanted: State) -> float:
    """Return max |a - b| over all numbers of two states of the same names and shapes; inf where one alone is NaN."""
    if {n: t.shape for n, t in state.items()} != {n: t.shape for n, t in wanted.items()}:
        raise RunError(
            "the run's checkpoint has other adapters than its job; give the folder as it was written"
        )
    return max((_apart(state[n].double().cpu(), wanted[n].double()) for n in state), default=0.0)


def _apart(one: Tensor, other: Tensor) -> float:
    """Return max |a - b| of two tensors of one shape; NaN, and inf, are as far from all else as can be."""
    equal = (one == other) | (one.isnan() & other.isnan())
    far = (one - other).abs().nan_to_num(nan=math.inf, posinf=math.inf).masked_fill(equal, 0.0)
    return float(far.max()) if far.numel() else 0.0
