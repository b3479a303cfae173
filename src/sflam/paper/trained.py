"""A part that trains: a comparison with its sweeps and varied settings; what learns the same is trained once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

from sflam.compare.comparison import Comparison, run_study
from sflam.compare.listing import CHARGE, FINISHED, LOST, listed
from sflam.compare.study import Study
from sflam.config import Job
from sflam.errors import ModelError
from sflam.network.benchmark import matmul_flops
from sflam.paper.along import panels, table
from sflam.paper.claim import Measured, Values
from sflam.paper.part import Drawn, OnLine, Outcome, PartWork
from sflam.planner.cell import workload_of
from sflam.records import history
from sflam.records.run_folder import RunFolder
from sflam.report.charts.comparison import comparison_panels
from sflam.report.outcome import Compared, costs_of
from sflam.report.statistics import interval_words

FINAL = ("accuracy", "virtual_s", "energy_j", "bytes", "bytes_up", "device_memory", "device_flop")
TO_TARGET = ("rounds", "virtual_s", "energy_j", "bytes")
DRAWN = ("accuracy", "virtual_s", "energy_j")
"""Metrics along a varied setting."""
CHARGED_S = 1.5
"""CPU seconds of a run that takes another's rounds, about."""
REACHED = 0.15
"""Share of a machine's product of matrices that training small mini-batches reaches, about."""
START_S = 4.0
"""CPU seconds before the first round of a run, about."""


@dataclass(frozen=True, kw_only=True)
class TrainedPart:
    """Runs that are trained, or charged anew.

    Attributes:
        name: in the file.
        title: for people.
        study: what is compared.
        key: the setting that its lines vary, along which figures are drawn; "" for none.
    """

    name: str
    title: str
    study: Study
    key: str = ""

    place: ClassVar[str] = "runs"

    def run(self, folder: Path, on_line: OnLine, jobs: int | None) -> Outcome:
        """Train what is not there yet; raises SflamError where all runs failed.

        The trained parts of a study share a folder of runs, so that what several ask for is trained once.
        """

        def on_event(run: str, what: str, rounds: int) -> None:
            if what != "round":
                on_line(f"{self.name}: {run}: {what}")

        found = run_study(self.study, folder, jobs=jobs, on_event=on_event)
        measured = measured_of(found)
        words = interval_words(self.study.seeds)
        note = f"bars: {words}"
        metrics = (*FINAL, *(f"{key} to target" for key in TO_TARGET))
        head, rows = table(measured, metrics)
        if self.key:
            figures = {self.name: Drawn(panels(measured, DRAWN, self.key), note)}
        else:
            lines = {name: item.records for name, item in found.methods.items()}
            figures = {self.name: Drawn(comparison_panels(lines), note)}
        for axis in found.sweeps:
            own = {arm: each for arm, each in measured.items() if f" {axis}=" in arm}
            figures[f"{self.name}-{axis}"] = Drawn(panels(own, DRAWN, axis), note)
        target = f"; target {found.targets[0].accuracy:.1%}: {found.targets[0].rule}"
        caption = f"Means over {self.study.seeds} seeds, ±: {words}{target}"
        return Outcome(
            measured=measured,
            figures=figures,
            head=head,
            rows=rows,
            caption=caption,
            failed=tuple(found.problems),
        )

    def work(self, folder: Path) -> PartWork:
        """Return the runs by state, and how long those that are not there take, by those that are or by an estimate."""
        runs = listed(self.study, folder)
        states: dict[str, int] = {}
        seconds = 0.0
        known = [_seconds(item.task.path) for item in runs if item.state == FINISHED]
        took = [each for each in known if each]
        for item in runs:
            states[item.state] = states.get(item.state, 0) + 1
            if item.state == CHARGE:
                seconds += CHARGED_S
            elif item.state not in (FINISHED, LOST):
                seconds += sum(took) / len(took) if took else estimate(item.task.job)
        return PartWork(part=self.name, what="runs", states=states, seconds=seconds)


def measured_of(found: Comparison) -> Measured:
    """Return the numbers of a comparison: an arm per line, and ``LINE AXIS=VALUE`` per point of a sweep."""
    target = found.targets[0].accuracy
    arms = {name: _numbers(item, target) for name, item in found.methods.items()}
    for axis, lines in found.sweeps.items():
        for name, points in lines.items():
            arms |= {f"{name} {axis}={value:g}": _numbers(item, target) for value, item in points}
    return arms


def estimate(job: Job) -> float:
    """Return about how many CPU seconds a run takes here: its FLOP by the cost model, and how fast this machine is."""
    try:
        work = workload_of(job)
    except ModelError:
        return 0.0
    learn, devices = job.learn, job.fleet.selected or job.fleet.devices
    flop = work.device_forward[0] + work.device_backward[0] + work.server_forward[0] + work.server_backward[0]
    steps = learn.local_steps or 1
    if learn.local_epochs:
        steps = max(1, learn.local_epochs * _samples(job) // job.fleet.devices // learn.batch)
    return START_S + learn.rounds * devices * steps * flop / (REACHED * _speed())


def _numbers(item: Compared, target: float) -> Mapping[str, Values]:
    costs = costs_of(item.records, target)
    return {key: item.values(key) for key in FINAL} | {f"{key} to target": costs[key] for key in TO_TARGET}


def _seconds(path: Path) -> float:
    """Return what the rounds of a run took, in seconds; one that was charged anew tells what its source took."""
    _, records = history.read(RunFolder(path).history)
    return sum(record.seconds for record in records)


@cache
def _speed() -> float:
    return matmul_flops(0.05)


def _samples(job: Job) -> int:
    """Return how many training samples a job's data holds, where that is known without reading them."""
    return {"digits": 1437}.get(job.data.name, 50000)
