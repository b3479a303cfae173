"""What ``sflam plan`` found: the plan beside others, as a table's rows, JSON, CSV and pictures."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import RenderableType

from sflam.files import replace_file, writing
from sflam.plan import Plan, Status


@dataclass(frozen=True, kw_only=True, eq=False)
class Planned:
    """What ``sflam plan`` found for one cell.

    Attributes:
        plan: the plan asked for.
        others: the other methods' plans, where they were asked for.
        front: (seconds, weighted joules) of the best trade-offs, where they were asked for.
        weighted: energy of the plan and the others as the objective weighs it, J.
        names: of the devices.
        model: what is trained.
        notes: what a user should know about the question itself.
    """

    plan: Plan
    others: tuple[Plan, ...] = ()
    front: tuple[tuple[float, float], ...] = ()
    weighted: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    model: str = ""
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What was planned, for people."""
        return f"{self.model} on {len(self.names)} devices"

    @property
    def several(self) -> bool:
        """Whether there are several servers to be at."""
        return False

    @property
    def extras(self) -> tuple[RenderableType, ...]:
        """What else to print beneath the plan."""
        return ()

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
        """Write plan.json, plan.csv and, where there is a plan, its pictures; return their names.

        Raises:
            RunError: the folder cannot be written.
        """
        with writing(folder, "choose another with --out"):
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / "plan.json", (json.dumps(self.to_dict(), indent=1) + "\n").encode())
            replace_file(folder / "plan.csv", self.to_csv().encode())
        written = ["plan.json", "plan.csv"]
        return written + self.draw(folder)

    def draw(self, folder: Path) -> list[str]:
        """Write the pictures into an existing folder; return their names."""
        from sflam.report.charts.plan import draw_allocation, draw_front

        written = []
        if len(self.plan.devices):
            draw_allocation(self.plan, folder / "allocation.png", names=self.names, title=self.title)
            written.append("allocation.png")
        if self.front:
            plans = (self.plan, *self.others)
            marks = [
                (one.method, one.latency, joules)
                for one, joules in zip(plans, self.weighted, strict=True)
                if one.status is not Status.INFEASIBLE
            ]
            draw_front(self.front, folder / "pareto.png", marks=marks, title=self.title)
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
