"""A part that only plans: every method at every value of varied settings, over several draws of the network."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from sflam import config
from sflam.compare.lines import LineName
from sflam.config import Job, overrides
from sflam.errors import AllocationError, ConfigError, RunError
from sflam.files import from_json, reading, replace_file, writing
from sflam.paper.along import panels, table
from sflam.paper.part import Drawn, OnLine, Outcome, PartWork
from sflam.planner import cell as planning
from sflam.report.statistics import interval_words
from sflam.run.contents import content_digest

QUANTITIES = ("objective", "latency", "energy", "server_energy", "gap", "device_memory")
POINT_S = 0.7
"""CPU seconds of a plan, about."""


@dataclass(frozen=True, kw_only=True)
class PlannedPart:
    """Plans, of which nothing is trained.

    Attributes:
        name: in the file.
        title: for people.
        job: whose network is planned; its seed is the first.
        lines: an allocator each, perhaps followed by settings.
        draws: networks that are drawn, with seeds from the job's own on.
        key: the setting along which figures are drawn; "" for bars.
        drawn: metrics that figures show.
    """

    name: str
    title: str
    job: Job
    lines: tuple[str, ...]
    draws: int
    key: str = ""
    drawn: tuple[str, ...] = ("objective", "latency", "energy")

    place: ClassVar[str] = "plans"

    def run(self, folder: Path, on_line: OnLine, jobs: int | None) -> Outcome:
        """Plan what is not there yet; raises ConfigError where no line can be planned."""
        with writing(folder, "choose another with --out"):
            folder.mkdir(parents=True, exist_ok=True)
        measured: dict[str, dict[str, list[float | None]]] = {}
        failed = []
        for line in self.lines:
            points = []
            try:
                for job, path in self._points(line, folder):
                    if not path.is_file():
                        with writing(path, "choose another folder"):
                            replace_file(path, (json.dumps(_planned(job)) + "\n").encode())
                    points.append(_read(path))
            except (AllocationError, ConfigError) as error:
                failed.append(f"{line}: {' '.join(str(error).split())}")
                continue
            on_line(f"{self.name}: {line}: planned")
            measured[line] = {key: [point[key] for point in points] for key in QUANTITIES}
        if not measured:
            raise ConfigError(failed)
        head, rows = table(measured, QUANTITIES)
        words = interval_words(self.draws)
        drawn = Drawn(panels(measured, self.drawn, self.key), f"bars: {words.replace('seeds', 'draws')}")
        caption = f"Means over {self.draws} draws of the network, ±: {words}"
        return Outcome(
            measured=measured,
            figures={self.name: drawn},
            head=head,
            rows=rows,
            caption=caption,
            failed=tuple(failed),
        )

    def work(self, folder: Path) -> PartWork:
        """Return how many plans are there."""
        paths = [path for line in self.lines for _, path in self._points(line, folder)]
        there = sum(path.is_file() for path in paths)
        states = {"finished": there, "to plan": len(paths) - there}
        return PartWork(part=self.name, what="plans", states=states, seconds=POINT_S * (len(paths) - there))

    def _points(self, line: str, folder: Path) -> Iterator[tuple[Job, Path]]:
        """Yield the job of every draw and where its numbers lie; raises ConfigError for a line no job can have."""
        name = LineName.of(line)
        values = [*overrides(self.job), *name.settings, f'plan.method="{name.method}"']
        job = config.load(None, values)
        for draw_number in range(self.draws):
            own = replace(job, seed=job.seed + draw_number)
            yield own, folder / f"plan-{content_digest(own)}.json"


def _planned(job: Job) -> dict[str, float | None]:
    """Return the numbers of a plan; raises AllocationError or ConfigError where there is none."""
    decision = planning.decide(job)
    plan = decision.plan
    if not math.isfinite(plan.objective):
        raise AllocationError(f"plan.method = {job.plan.method!r} finds no plan: {'; '.join(plan.advice)}")
    devices = [(each.compute_j + each.transmit_j, each.cut) for each in plan.devices]
    memory = None if decision.several else planning.workload_of(job).device_memory
    return {
        "objective": plan.objective,
        "latency": plan.latency,
        "energy": plan.energy,
        "server_energy": max(0.0, plan.energy - math.fsum(joules for joules, _ in devices)),
        "gap": plan.gap if math.isfinite(plan.gap) else None,
        "device_memory": None if memory is None else float(max(memory[cut] for _, cut in devices)),
    }


def _read(path: Path) -> dict[str, float | None]:
    with reading(path, "remove it, and it is planned again"):
        text = path.read_text(encoding="utf-8")
    try:
        found = from_json(text)
        return {key: None if found[key] is None else float(found[key]) for key in QUANTITIES}
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged; remove it, and it is planned again") from error
