"""From an assembled job to a simulated fleet, or one sentence why it cannot be."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from sflam.config import Job
from sflam.data.dataset import Dataset
from sflam.data.sampling import most_rows
from sflam.errors import ConfigError
from sflam.learn.attendance import AttendedFleet
from sflam.learn.fleet import Fleet
from sflam.learn.methods import method_of
from sflam.learn.secure_width import secure_width
from sflam.learn.split_fleet import LocalFleet
from sflam.learn.staleness import BUFFERED
from sflam.network import trace
from sflam.network.presence import presence_of, uncertain
from sflam.network.scenario import build
from sflam.plan import Placement
from sflam.planner import edge as planning_edge
from sflam.planner.cell import moves, with_devices
from sflam.planner.secure_sums import with_sums
from sflam.records.history import RoundRecord
from sflam.simulate.attended import AttendedSimulation
from sflam.simulate.buffered import BufferedSimulation, waiting_note
from sflam.simulate.buffered_trunk import SharedTrunkSimulation
from sflam.simulate.cell_planner import CellPlanner
from sflam.simulate.edge_planner import EdgePlanner
from sflam.simulate.feedback import feedback_of
from sflam.simulate.fleet import SimulatedFleet
from sflam.simulate.work import batches_of, work_of, work_of_each, works_at


def simulated(
    job: Job,
    inner: Fleet,
    halves: LocalFleet | None,
    parts: Sequence[NDArray[np.int64]],
    train: Dataset,
    numbers: int,
) -> Fleet:
    """Return ``inner`` on a virtual clock over the job's network.

    Args:
        job: the settings.
        inner: trains.
        halves: the fleet of a cut model beneath it; None where no model is cut.
        parts: the samples of each device, int64 [n_k].
        train: the training samples; the lengths of texts are what they cost.
        numbers: trained numbers of the whole model, which devices that hold it send.

    Raises:
        ConfigError, ModelError: what cannot be simulated.
    """
    job = with_devices(job)
    expect_possible(job)
    samples = np.array([len(part) for part in parts], np.int64)
    rows = most_rows(samples.tolist(), job.learn.batch, job.fleet.asked, job.sampling)
    work, batches = work_of(job, train, numbers, rows), batches_of(job, parts)
    if job.privacy.secure_aggregation:
        work = with_sums(
            work, job, secure_width(job.learn, job.quant.adapters, job.fleet.asked, samples.tolist())
        )
    if planning_edge.wanted(job):
        at_tuned = works_at(job, train, numbers, rows)
        edge = EdgePlanner(job, work, batches, samples, numbers=numbers, moves=moves(job), at_tuned=at_tuned)
        edge.expect_possible(build(job.network, job.seed))  # before anything is written
        return SimulatedFleet(inner, edge, job, halves, notes(job))
    feedback = feedback_of(job, halves)
    ranked = work_of_each(job, train, numbers, rows)
    once = method_of(job).whole
    planner = CellPlanner(job, work, batches, samples, once=once, feedback=feedback, ranked=ranked)
    if job.learn.sync == BUFFERED:
        assert halves is not None, "run.compatibility refuses a method without a cut"
        paced = SharedTrunkSimulation if job.learn.practice.shared else BufferedSimulation
        return paced(halves, planner, job, (*notes(job), *waiting_note(job)))
    if uncertain(job):
        presence = presence_of(job.network, build(job.network, job.seed).names)
        attended = cast(AttendedFleet | None, halves)  # as methods build them for such a job
        return AttendedSimulation(inner, planner, job, attended, notes(job), presence=presence)
    return SimulatedFleet(inner, planner, job, halves, notes(job))


def notes(job: Job) -> tuple[str, ...]:
    """Return notes for the user about a simulated run, before it starts."""
    found = list(trace.read(job.network.trace).notes) if job.network.trace else []
    if moves(job):
        what = "who trains how many blocks at which server" if planning_edge.wanted(job) else "the cut"
        found.append(
            f"every plan chooses {what} anew; the memory above is that of model.cut = {job.model.cut}, "
            "the result reports that of the deepest cut in use"
        )
    if planning_edge.wanted(job) and not job.network.idle_always:
        if build(job.network, job.seed).static_power.any():
            found.append(
                "static power is charged while devices compute; charge what they draw in waiting with "
                "network.idle_always = true"
            )
    if job.fleet.ranks and planning_edge.wanted(job):
        found.append(
            f"fleet.ranks: plans for several servers count every device at model.rank = {job.model.rank}, which is at "
            "most too much; the bytes of a round are those really sent"
        )
    elif job.fleet.ranks and job.network.calibrate:
        found.append(
            "fleet.ranks: steps are measured on a device with most samples at a cut, whatever its rank"
        )
    if job.network.calibrate:
        found.append(
            "network.calibrate: steps take as long as on this machine, so virtual time depends on how fast and how "
            "busy it is"
        )
    if job.network.battery_j and not job.fleet.selected:
        found.append(
            "fleet.selected is 0, so every device trains until its battery is empty; set fleet.selected, and "
            'fleet.policy = "energy", to spare the emptier ones'
        )
    elif job.fleet.policy != "uniform" and not 0 < job.fleet.asked < job.fleet.devices:
        found.append(
            f'fleet.policy = "{job.fleet.policy}" leaves no device out: all {job.fleet.devices} devices take part in '
            "every round; set fleet.selected"
        )
    blind = not job.plan.sensitivity and not job.plan.measure_every
    if "bits" in job.plan.optimize and method_of(job).quantized and blind:
        found.append(
            "plan.sensitivity is 0, so quantization noise costs nothing and the fewest bits win; measure chi with "
            "plan.measure_every = 5"
        )
    return tuple(found)


def deepest_placements(job: Job, records: Sequence[RoundRecord]) -> tuple[Placement, ...]:
    """Return where the round with the deepest cut had the devices, since a device's memory shows there.

    A device that was not in that round is placed as those that were. Empty where plans do not move devices.
    """
    charges = [record.charge for record in records if record.charge is not None]
    if not charges or not moves(job):
        return ()
    charge = max(charges, key=lambda charged: max(charged.cuts))
    servers = charge.servers or (0,) * len(charge.cuts)
    tuned = charge.tuned or (0,) * len(charge.cuts)
    places = itertools.cycle(zip(charge.cuts, servers, tuned, strict=True))
    return tuple(
        replace(placement, cut=cut, server=server, tuned=own or placement.tuned)
        for placement, (cut, server, own) in zip(job.placements, places, strict=False)
    )


def expect_possible(job: Job) -> None:
    """Raise ConfigError where the network is not that of the run."""
    network, problems = build(job.network, job.seed), []
    if len(network) != job.fleet.devices:
        problems.append(
            f"the network has {len(network)} devices, but fleet.devices is {job.fleet.devices}; make them equal"
        )
    if job.network.trace and (rows := len(trace.read(job.network.trace).times)) < job.learn.rounds:
        problems.append(
            f"trace {job.network.trace} has {rows} rounds, but learn.rounds is {job.learn.rounds}; give a longer "
            "trace, or fewer rounds"
        )
    if problems:
        raise ConfigError(problems)
