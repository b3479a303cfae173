"""From a network file to a plan: build the network, measure the model, state the problem, ask the allocator."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sflam.allocate.cell import bits_both, device_cuts
from sflam.allocate.cell import cuts as one_cut
from sflam.allocate.cell.cuts import server_clock
from sflam.allocate.cell.problem import Problem
from sflam.allocate.registry import allocate, method_of
from sflam.allocate.settings import BY_BAND, BY_SUBCHANNEL, CHOOSE_BITS
from sflam.config import Job, digest
from sflam.cost.latency import server_turn
from sflam.cost.lean_device import lean_of
from sflam.cost.measure import measure
from sflam.cost.reference import ref_a_workload
from sflam.cost.timing import BARRIER, RELAY, Lockstep
from sflam.cost.traffic import Traffic, expected_traffic
from sflam.cost.training import Training
from sflam.errors import ConfigError
from sflam.learn.methods import timing_of
from sflam.model.settings import ModelSettings
from sflam.network.network import Network
from sflam.network.scenario import build
from sflam.network.settings import COUNTS
from sflam.plan import Plan
from sflam.planner import edge as planning_edge
from sflam.planner.decision import Decision
from sflam.planner.leakage import LeakLevel, cuts_to_try, expect_given_cuts, levels
from sflam.planner.notes import notes
from sflam.planner.relay import in_turns
from sflam.planner.secure_sums import with_sums
from sflam.planner.steps import waited_steps
from sflam.planner.trade import trade, weighted_energy
from sflam.planner.way_down import with_way_down
from sflam.sizes import FLOAT_BITS
from sflam.workload import Workload

DRAWN = 25
"""Points of the front in a picture where no number is given."""
MANY = 5000
"""Devices from which a picture has fewer points."""


def workload_of(job: Job) -> Workload:
    """Return what a job's model costs; the reference cell trains ViT-B/16 unless ``[model]`` names another.

    Raises:
        ModelError: an unknown model, or targets it has not.
    """
    if job.network.scenario == "refA" and job.model.name == ModelSettings().name:
        assert job.model.labels == "server", "run.compatibility refuses others"
        return ref_a_workload()
    return measured(job)


def measured(job: Job, tokens: int = 0) -> Workload:
    """Return what a job's own model costs, also in the reference cell; texts have ``tokens`` unless the plan sets them.

    Raises:
        ModelError: an unknown model, or targets it has not.
    """
    workload = measure(job.model.name, training_of(job, tokens), scheme=job.quant.scheme)
    if job.learn.personal == "device-half":  # it stays on its device
        workload = replace(workload, adapter_values=(0,) * (workload.blocks + 1))
    workload = replace(
        workload,
        adapter_change=job.quant.adapters,
        adapter_grids=job.quant.adapters_scale == "common" and job.quant.adapters < FLOAT_BITS,
        numbered=job.quant.delta or job.learn.cache == "server",
        # Control variates are as large as the adapters, both ways.
        adapter_bodies=1 + (job.learn.practice.local == "scaffold"),
    )
    return with_sums(workload, job)


def workloads_at(job: Job, tokens: int = 0) -> tuple[Workload, ...]:
    """Return what a job's model costs with 1, 2, ... Y first blocks tuned, where plans choose how many."""
    if not planning_edge.chooses_tuned(job):
        return ()
    blocks = measured(job, tokens).blocks
    each = (replace(job, model=replace(job.model, tuned=tau)) for tau in range(1, blocks + 1))
    return tuple(measured(own, tokens) for own in each)


def device_jobs(job: Job) -> tuple[Job, ...]:
    """Return a job for each device whose model has its LoRA rank and tuned blocks; none where all have the model's."""
    if not job.fleet.ranks and not job.fleet.tuned:
        return ()
    ranks = job.fleet.ranks or (job.model.rank,) * job.fleet.devices
    tuned = job.fleet.tuned or (job.model.tuned,) * job.fleet.devices
    kinds = {
        kind: replace(job, model=replace(job.model, rank=kind[0], tuned=kind[1]))
        for kind in set(zip(ranks, tuned, strict=True))
    }
    return tuple(kinds[kind] for kind in zip(ranks, tuned, strict=True))


def _own(job: Job, devices: int) -> tuple[Workload, ...]:
    """Return what a mini-batch costs each device of a network, where they differ.

    Raises:
        ConfigError: the fleet has other devices than the network.
    """
    jobs = device_jobs(job)
    if jobs and len(jobs) != devices:
        key = "fleet.tuned" if job.fleet.tuned else "fleet.ranks"
        raise ConfigError(
            f"{key} has {len(jobs)} values, and the network {devices} devices; give one value for each of them"
        )
    found = {one.model: workload_of(one) for one in jobs}
    return tuple(found[one.model] for one in jobs)


def training_of(job: Job, tokens: int = 0) -> Training:
    """Return what the cost of training needs to know of a job; texts have ``tokens`` unless the plan sets them."""
    return Training(
        batch=job.learn.batch,
        tokens=job.plan.tokens or tokens,
        rank=job.model.rank,
        tuned=job.model.tuned,
        targets=job.model.targets,
        dtype=job.model.dtype,
        optimizer_slots=job.learn.optimizer_slots,
        full=job.model.trainable == "full",
        labels_home=job.model.labels == "device",
        frozen_a=job.learn.practice.aggregation == "freeze-a",
        frozen_half=job.learn.practice.device_half == "frozen",
        lora_dropout=job.model.dropout > 0,
        checkpointing=job.learn.checkpointing,
        memory_gb=job.learn.memory_gb,
        samples_apart=bool(job.privacy.sample_clip),
        drop_tokens=job.privacy.drop_tokens,
        lean=lean_of(job),
    )


def problem_of(
    job: Job,
    round_number: int = 0,
    *,
    cut: ArrayLike | None = None,
    bits: ArrayLike | None = None,
    bits_down: ArrayLike | None = None,
    server: bool | None = None,
    network: Network | None = None,
    workload: Workload | None = None,
    steps: ArrayLike | None = None,
    averages: int | None = None,
    made: ArrayLike | None = None,
    sent: ArrayLike | None = None,
    own: Sequence[Workload] = (),
    traffic: Traffic | None = None,
    lockstep: Lockstep | None = None,
) -> Problem:
    """Return the problem a job states: its network in a round, its model, and the weights of its objective.

    The way down is each device's delay. The server serves all devices one after another: its turn is T0, its energy J0.

    Args:
        job: its ``[network]``, ``[plan]``, ``[model]``, ``[quant]`` and batch.
        round_number: whose fading or trace.
        cut: blocks on the device, instead of the job's.
        bits: bits of an activation value, instead of the job's.
        bits_down: bits of a gradient value, instead of the job's.
        server: whether the server's turn is counted; None counts it but in the reference cell.
        network: replaces the job's network of that round.
        workload: what a mini-batch costs, instead of the job's model.
        steps: mini-batches of a round, instead of the job's.
        averages: local steps of the fleet in a round, instead of the job's, where halves are averaged in each.
        made: mini-batches whose activations devices make, where they or the server keep others.
        sent: those whose activations cross.
        own: what a mini-batch costs each device, where LoRA ranks or tuned blocks differ.
        traffic: what the round's mini-batches hold, instead of what is expected.
        lockstep: the steps at which its devices wait for each other, where they do, instead of those expected.

    Raises:
        ConfigError: settings, profiles or traces that cannot be used.
        ModelError: a model that cannot be measured.
        AllocationError: numbers no problem can have.
    """
    network = build(job.network, job.seed, round_number) if network is None else network
    if workload is None:
        own = own or _own(job, len(network))
    workload, wish = workload_of(job) if workload is None else workload, job.plan
    if len(network.bandwidth) > 1:
        raise ConfigError(f"the network has {len(network.bandwidth)} servers; plan one server at a time")
    problem = Problem(
        network=network,
        workload=workload,
        cut=(job.fleet.cuts or job.model.cut) if cut is None else cut,
        bits=job.quant.bits_up if bits is None else bits,
        bits_down=job.quant.bits_down if bits_down is None else bits_down,
        latency_weight=wish.latency_weight,
        deadline=wish.deadline or np.inf,
        choose_clocks="clock" in wish.optimize,
        local_steps=wish.local_steps if steps is None else steps,
        made=made,
        sent=sent,
        own=tuple(own),
        own_trunk=not job.learn.practice.shared,
        averages=(wish.local_steps if averages is None else averages) * averages_halves(job),
        radio_cap=wish.radio_cap or np.inf,
        compute_cap=wish.compute_cap or np.inf,
        energy_cap=wish.energy_cap or np.inf,
        sensitivity=wish.sensitivity,
        sensitivity_down=wish.sensitivity_down,
        bit_choices=tuple(range(wish.bits_least, wish.bits_most + 1)),
    )
    if wish.counts == "all" and not (steps is None and job.network.scenario == "refA"):
        traffic = traffic or expected_traffic(workload, problem.local_steps, len(problem))
        problem = problem.change(traffic=traffic)
    problem = with_way_down(job, problem)
    if timing_of(job) == BARRIER:
        problem = problem.change(lockstep=lockstep or waited_steps(job, problem, averages))
    if server is False or (server is None and job.network.scenario == "refA"):
        return problem
    return _with_turn(problem)


def _with_turn(problem: Problem) -> Problem:
    """Return the problem with the server's turn for its devices in T0 and J0, at its best clock."""
    network, clock = problem.network, server_clock(problem)
    halves = problem.own if problem.own_trunk else ()
    turn = server_turn(
        network, problem.workload, cut=problem.each("cut"), steps=problem.local_steps, own=halves
    )[0]
    seconds = float(turn) * (float(network.server_clock[0]) / clock)
    return problem.change(base_s=seconds, base_j=float(network.server_kappa[0]) * clock**3 * seconds)


def with_devices(job: Job) -> Job:
    """Return the job with a network of as many devices as the fleet has, unless it sets a number."""
    network = job.network
    given = network.device or network.profiles or network.trace or network.devices != COUNTS["devices"]
    return job if given else replace(job, network=replace(network, devices=job.fleet.devices))


def averages_halves(job: Job) -> bool:
    """Return whether gradients of device halves travel in every local step, to be averaged."""
    return job.learn.practice.device_half == "averaged"


def decide(
    job: Job, *, compare: bool = False, points: int = 0, round_number: int = 0, draw: bool = False
) -> Decision:
    """Return a job's plan; for several servers see :mod:`sflam.planner.edge`.

    Args:
        job: its ``[network]``, ``[plan]``, ``[model]`` and ``[quant]``.
        compare: also plan with every other method that decides the same.
        points: of the front between time and energy, at least two; 0 for none, but some where ``draw`` wants a picture.
        round_number: whose fading or trace.
        draw: whether pictures will be drawn.

    Raises:
        ConfigError, ModelError, AllocationError: what no plan can be made for, and why.
    """
    if points < 0 or points == 1 or round_number < 0:
        raise ConfigError(
            f"--pareto is {points} and --round {round_number}; give 2 points or more, a round from 0 on"
        )
    if planning_edge.wanted(job):
        measured = None if job.network.scenario == "refB" else workload_of(job)
        tuned = () if measured is None else workloads_at(job)
        return planning_edge.decide(
            job, measured, compare=compare, points=points, round_number=round_number, at_tuned=tuned
        )
    method = method_of(job.plan)
    if not chooses_cut(job, method):
        expect_given_cuts(job)
    plan = plan_with(job, method, round_number)
    problem = problem_of(job, round_number)
    relay = timing_of(job) == RELAY  # whose turns have a front each
    if len(plan.devices):  # the front is at the plan's own cuts and bits
        devices = plan.devices
        turn = True if chooses_cut(job, method) else None
        down = devices.bits_down
        problem = problem_of(
            job, round_number, cut=devices.cut, bits=devices.bits, bits_down=down, server=turn
        )
    names = [name for name in rivals(job) if name != method] if compare else []
    others = tuple(plan_with(job, name, round_number) for name in names)
    points = points or DRAWN * draw
    points = min(points, 9) if len(problem) > MANY and draw else points
    return Decision(
        plan=plan,
        others=others,
        front=trade(problem, plan.latency, points) if points and len(plan.devices) and not relay else (),
        weighted=tuple(weighted_energy(problem, each) for each in (plan, *others)),
        names=problem.network.names,
        model=problem.workload.name,
        notes=tuple(notes(job)),
        leakage=tuple(
            LeakLevel(leak, cut, plan_with(own, method, round_number))
            for leak, cut, own in levels(job)
            if chooses_cut(job, method) and cut < problem.workload.blocks
        ),
        job=digest(job),
    )


def chooses_cut(job: Job, method: str) -> bool:
    """Return whether a method looks at all cuts."""
    return "cut" in job.plan.optimize or method == "cut"


def moves(job: Job) -> bool:
    """Return whether a run's plans decide on cuts or servers again in later rounds."""
    if planning_edge.wanted(job):
        return not (job.fleet.cuts or job.fleet.servers)
    return chooses_cut(job, method_of(job.plan))


def rivals(job: Job) -> list[str]:
    """Return the methods that decide the same variables, so that their objectives compare."""
    names = ["optimal", "bcd", "equal-bandwidth", "equal", "random"]
    chooses = "bits" in job.plan.optimize
    if job.plan.subchannels:
        names += [name for name in BY_SUBCHANNEL if chooses or name not in CHOOSE_BITS]
    if chooses:
        names += ["bcd-bits"] if job.plan.subchannels else ["bits", "bcd-bits", "fixed-bits"]
    if importlib.util.find_spec("cvxpy") and job.plan.method == "oracle":
        names.append("oracle")
    return [name for name in names if name not in BY_BAND] if job.network.access == "airtime" else names


def plan_with(job: Job, method: str, round_number: int = 0) -> Plan:
    """Return the plan of one method, over all cuts where the cut is to be chosen; of a relay, of turns."""
    if timing_of(job) == RELAY:
        chosen = chooses_cut(job, method)
        kind = "optimal" if method == "cut" else method
        served = chosen or job.network.scenario != "refA"
        whole = cache(lambda cut: problem_of(job, round_number, cut=cut, server=False))

        def alone(device: int, cut: int | None) -> Plan:
            one = whole(cut).only(np.array([device]))
            return best_here(job, _with_turn(one) if served else one, kind)

        count = len(build(job.network, job.seed, round_number))
        return in_turns(count, alone, cuts_to_try(job, workload_of(job).blocks) if chosen else ())
    if chooses_cut(job, method):
        return best_cut(job, problem_of(job, round_number, server=False), method)
    return best_here(job, problem_of(job, round_number), method)


def best_here(job: Job, problem: Problem, method: str) -> Plan:
    """Return the plan of one method at the problem's cuts, with bits down where they are to be chosen."""
    if chooses_down(job, method):
        return bits_both.solve(problem, partial(with_way_down, job))
    return allocate(problem, method, **options_of(job, method))


def chooses_down(job: Job, method: str) -> bool:
    """Return whether a method chooses bits down: where they are asked for, and take time."""
    timed = job.network.downlink_mbps > 0 or any(device.downlink_mbps for device in job.network.device)
    return method == "bits" and "bits_down" in job.plan.optimize and timed


def best_cut(job: Job, problem: Problem, method: str) -> Plan:
    """Return the plan of one method over all cuts of a problem that counts no server's turn.

    Methods that are exact give every device a cut of its own, all others one to all.
    """
    blocks, place = cuts_to_try(job, problem.workload.blocks), partial(with_way_down, job)
    if method in ("cut", "optimal"):
        return device_cuts.solve(problem, blocks, place)
    if method == "bits":
        return device_cuts.solve_with_bits(problem, blocks, place)
    options = options_of(job, method)
    return one_cut.solve(problem, blocks, lambda here: allocate(place(here), method, **options))


def options_of(job: Job, method: str) -> dict[str, Any]:
    """Return a method's options beside the problem."""
    if method in BY_SUBCHANNEL:
        return {"count": job.plan.subchannels}
    if method == "bcd-bits" and job.plan.subchannels:
        return {"subchannels": job.plan.subchannels}
    return {"seed": job.seed} if method == "random" else {}
