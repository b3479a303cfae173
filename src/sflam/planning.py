"""From a network file to a plan: build the network, measure the model, state the problem, ask the allocator."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sflam.allocate.methods import METHODS, allocate, pareto
from sflam.allocate.problem import Problem
from sflam.config import Job
from sflam.cost.latency import server_turn
from sflam.durable import replace_file
from sflam.errors import ConfigError, RunError
from sflam.model.measure import Training, measure
from sflam.model.settings import ModelSettings
from sflam.network.network import Network
from sflam.network.reference import ref_a_workload
from sflam.network.scenario import build
from sflam.plan import Plan
from sflam.workload import Workload

DRAWN = 25
"""Points of the front in a picture nobody asked a number for."""
SLOTS = {"adamw": 2, "adam": 2, "sgd": 0}
"""Numbers an optimiser keeps per trained weight, without momentum."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Planned:
    """What ``sflam plan`` found.

    Attributes:
        plan: the plan asked for.
        others: the other methods' plans, where they were asked for.
        front: (seconds, joules) of the best trade-offs, where they were asked for.
        names: of the devices.
        model: what is trained.
    """

    plan: Plan
    others: tuple[Plan, ...] = ()
    front: tuple[tuple[float, float], ...] = ()
    names: tuple[str, ...] = ()
    model: str = ""

    @property
    def title(self) -> str:
        """What was planned, for people."""
        return f"{self.model} on {len(self.names)} devices"

    def to_dict(self) -> dict[str, Any]:
        """Return one object for JSON: the plan, and what else was asked for."""
        found = self.plan.to_dict()
        for device, name in zip(found["devices"], self.names, strict=False):
            device["name"] = name
        found["model"] = self.model
        if self.others:
            best = min(one.objective for one in (self.plan, *self.others))
            found["compare"] = [
                {key: value for key, value in one.to_dict().items() if key not in ("devices", "history")}
                | {"ratio": one.objective / best if np.isfinite(one.objective) else None}
                for one in (self.plan, *self.others)
            ]
        if self.front:
            found["pareto"] = [{"latency_s": seconds, "energy_j": joules} for seconds, joules in self.front]
        return found

    def write(self, folder: Path) -> list[str]:
        """Write plan.json, plan.csv and, where there is a plan, allocation.png and pareto.png; return their names.

        Raises:
            RunError: the folder cannot be written.
        """
        from sflam.report.plan_chart import draw_allocation, draw_front

        try:
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / "plan.json", (json.dumps(self.to_dict(), indent=1) + "\n").encode())
            replace_file(folder / "plan.csv", self.to_csv().encode())
        except OSError as error:
            raise RunError(
                f"{folder} cannot be written ({error.strerror}); choose another with --out"
            ) from error
        written = ["plan.json", "plan.csv"]
        if len(self.plan.devices):
            draw_allocation(self.plan, folder / "allocation.png", names=self.names, title=self.title)
            written.append("allocation.png")
        if self.front:
            draw_front(self.front, folder / "pareto.png", plans=(self.plan, *self.others), title=self.title)
            written.append("pareto.png")
        return written

    def to_csv(self) -> str:
        """Return a header and a line per device, SI units."""
        rows = [
            {"name": name} | asdict(one) for name, one in zip(self.names, self.plan.devices, strict=False)
        ]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else ["name"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


def workload_of(job: Job) -> Workload:
    """Return what a job's model costs; the reference cell trains ViT-B/16 unless ``[model]`` says otherwise.

    Raises:
        ConfigError: labels that stay on the device.
        ModelError: an unknown model, or targets it has not.
    """
    if job.model.labels == "device":
        raise ConfigError('model.labels is "device": a plan counts one exchange a step; plan with "server"')
    if job.network.scenario == "refA" and job.model.name == ModelSettings().name:
        return ref_a_workload()
    momentum = job.learn.optimizer == "sgd" and job.learn.momentum > 0
    training = Training(
        batch=job.learn.batch,
        rank=job.model.rank,
        targets=job.model.targets,
        dtype=job.model.dtype,
        optimizer_slots=SLOTS[job.learn.optimizer] + momentum,
    )
    return measure(job.model.name, training, scheme=job.quant.scheme)


def problem_of(job: Job, round_number: int = 0) -> Problem:
    """Return the problem a job states: its network in a round, its model, and what a plan is to weigh.

    The server serves all devices one after another: its turn is T0; the way down is each device's delay.

    Raises:
        ConfigError: settings, profiles or traces that cannot be used.
        ModelError: a model that cannot be measured.
        AllocationError: numbers no problem can have.
    """
    network, workload = build(job.network, job.seed, round_number), workload_of(job)
    if len(network.bandwidth) > 1:
        raise ConfigError(f"a plan for {len(network.bandwidth)} servers; plan one server at a time")
    cut = job.fleet.cuts or job.model.cut
    steps = job.learn.local_steps or 1
    return Problem(
        network=network,
        workload=workload,
        cut=cut,
        bits=job.quant.bits_up,
        bits_down=job.quant.bits_down,
        latency_weight=job.plan.latency_weight,
        deadline=job.plan.deadline_s or np.inf,
        local_steps=steps,
        choose_clocks="clock" in job.plan.optimize,
        **_server(job, network, workload, steps),
    )


def _server(job: Job, network: Network, workload: Workload, steps: int) -> dict[str, Any]:
    """Return what the server and the way down add to a round whatever the plan."""
    cut = np.broadcast_to(np.asarray(job.fleet.cuts or job.model.cut), (len(network),))
    if not (np.all(cut >= 0) and np.all(cut <= workload.blocks)):
        return {}  # the problem itself says what is wrong
    added: dict[str, Any] = {}
    if job.network.downlink_mbps:
        down = np.array([workload.down_bits(int(one), job.quant.bits_down) for one in cut], float)
        added["delay"] = down / (job.network.downlink_mbps * 1e6)
    if job.network.scenario != "refA":  # its server takes no time
        turn = steps * float(server_turn(network, workload, cut=cut)[0])
        added |= {
            "base_s": turn,
            "base_j": float(network.server_kappa[0] * network.server_clock[0] ** 3) * turn,
        }
    return added


def decide(
    job: Job, *, compare: bool = False, points: int = 0, round_number: int = 0, draw: bool = False
) -> Planned:
    """Return the plan a job asks for.

    Args:
        job: its ``[network]``, ``[plan]``, ``[model]`` and ``[quant]``.
        compare: also plan with every other method.
        points: of the front between time and energy; 0 for none, but some where ``draw`` wants a picture.
        round_number: whose fading or trace.
        draw: whether pictures will be drawn.

    Raises:
        ConfigError, ModelError, AllocationError: what no plan can be made for, and why.
    """
    if points < 0 or round_number < 0:
        raise ConfigError(f"--pareto is {points} and --round {round_number}; both must be 0 or more")
    problem = problem_of(job, round_number)
    if "cut" in job.plan.optimize:
        job, problem, plan = _best_cut(job, problem, round_number)
    else:
        plan = _solve(job, problem, job.plan.method)
    names = [name for name in METHODS if name != job.plan.method] if compare else []
    others = tuple(_solve(job, problem, name) for name in names)
    points = points or (DRAWN * draw)
    front = tuple(pareto(problem, points)) if points and len(plan.devices) else ()
    return Planned(
        plan=plan, others=others, front=front, names=problem.network.names, model=problem.workload.name
    )


def _solve(job: Job, problem: Problem, method: str) -> Plan:
    return allocate(problem, method)


def _best_cut(job: Job, problem: Problem, round_number: int) -> tuple[Job, Problem, Plan]:
    """Return the job, problem and plan of the common cut with the lowest objective; memory rules some out."""
    best: tuple[Job, Problem, Plan] | None = None
    for cut in range(problem.workload.blocks):  # with every block on the device no activations would be sent
        tried = replace(job, model=replace(job.model, cut=cut), fleet=replace(job.fleet, cuts=()))
        stated = problem_of(tried, round_number)
        plan = _solve(tried, stated, job.plan.method)
        if best is None or plan.objective < best[2].objective:
            best = tried, stated, plan
    assert best is not None
    return best
