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

from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.shares import Costs, EdgeShares, Loads
from sflam.allocate.referee import loads, score
from sflam.files import replace_file, writing
from sflam.plan import Plan, Status
from sflam.planner.leakage import LeakLevel
from sflam.report.terminal.edge_table import costs_table, loads_table
from sflam.report.terminal.leakage_table import leakage_table
from sflam.units import human_si


@dataclass(frozen=True, kw_only=True, eq=False)
class Decision:
    """What ``sflam plan`` found, for one server or several.

    Attributes:
        plan: the chosen method's plan.
        others: the other methods' plans, where requested.
        front: (seconds, weighted joules) of the best trade-offs, where requested.
        weighted: energy of the plan and the others as the objective weighs it, J.
        names: of the devices.
        model: what is trained.
        notes: what a user should know about the question itself.
        leakage: what less given away costs, where the job names an audit and cuts are chosen.
        edge: what was planned among several servers; None for one.
        job: digest of the job that was planned.
    """

    plan: Plan
    others: tuple[Plan, ...] = ()
    front: tuple[tuple[float, float], ...] = ()
    weighted: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    model: str = ""
    notes: tuple[str, ...] = ()
    leakage: tuple[LeakLevel, ...] = ()
    edge: EdgeProblem | None = None
    job: str = ""

    @property
    def title(self) -> str:
        """What was planned, as a title."""
        if self.edge is None:
            return f"{self.model} on {len(self.names)} devices"
        return f"{self.model}: {len(self.edge)} users, {self.edge.servers} servers"

    @property
    def several(self) -> bool:
        """Whether the plan is among several servers."""
        return self.edge is not None

    @property
    def extras(self) -> tuple[RenderableType, ...]:
        """What else to print beneath the plan: among several servers the parts of the cost and the loads; of an audit
        what less given away costs.
        """
        leaks = (
            (
                leakage_table(
                    [(each.leak, each.cut, each.plan.latency, each.plan.energy) for each in self.leakage]
                ),
            )
            if self.leakage
            else ()
        )
        if self.edge is None:
            return leaks
        load, costs, network = self._loads(self.edge), self._costs(self.edge), self.edge.network
        return (
            costs_table(costs.delay, costs.energy, costs.instability, costs.fit),
            loads_table(load.users, load.bandwidth, network.bandwidth, load.clock, network.server_clock),
            *leaks,
        )

    def _costs(self, edge: EdgeProblem) -> Costs:
        return score(edge, EdgeShares.from_plan(self.plan.devices)).costs

    def _loads(self, edge: EdgeProblem) -> Loads:
        return loads(edge, self.plan.devices)

    def to_dict(self) -> dict[str, Any]:
        """Return one object for JSON: the plan, and whatever else was requested."""
        found = self.plan.to_dict()
        for device, name in zip(found["devices"], self.names, strict=False):
            device["name"] = name
        found["model"], found["job"] = self.model, self.job
        if self.others:
            best = min(plan.objective for plan in (self.plan, *self.others))
            found["compare"] = [
                {key: value for key, value in plan.to_dict().items() if key not in ("devices", "history")}
                | {"ratio": plan.objective / best if np.isfinite(plan.objective) else None}
                for plan in (self.plan, *self.others)
            ]
        if self.edge is not None:
            for device in found["devices"]:
                device["layers"] = device["cut"]
            found["costs"] = asdict(self._costs(self.edge))
            load = self._loads(self.edge)
            found["servers"] = [
                {"users": int(user), "bandwidth": band, "clock": clock}
                for user, band, clock in zip(
                    load.users, load.bandwidth.tolist(), load.clock.tolist(), strict=True
                )
            ]
        if self.leakage:
            found["leakage"] = [
                {"leak": level.leak, "least_cut": level.cut, "status": str(level.plan.status)}
                | {
                    "latency_s": level.plan.latency,
                    "energy_j": level.plan.energy,
                    "objective": level.plan.objective,
                }
                for level in self.leakage
            ]
        if self.front:
            found["pareto"] = [{"latency_s": seconds, "energy_j": joules} for seconds, joules in self.front]
        return found

    def to_frame(self) -> Any:
        """Return a row per device, SI units: a pandas DataFrame, or name -> array where pandas is not installed."""
        from sflam.report.notebook import frame

        return frame(self.rows)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row per device with its name, as plan.json has them."""
        devices = self.to_dict()["devices"]
        return [{"name": device.get("name", ""), **device} for device in devices]

    def _repr_html_(self) -> str:
        """Return what a notebook shows: objective, bound, and what each device is given."""
        from sflam.report.notebook import html_table

        shown = {
            "cut": "",
            "bits": "",
            "bandwidth": "Hz",
            "power": "W",
            "clock": "Hz",
            "latency_s": "s",
            "energy_j": "J",
        }
        keys = [key for key in shown if any(key in row for row in self.rows)]
        body = [
            [row["name"], *(human_si(row[key], shown[key]) if shown[key] else row[key] for key in keys)]
            for row in self.rows
        ]
        plan = self.plan
        found = f"objective {plan.objective:.6g}, bound {plan.lower_bound:.6g}, {plan.status}"
        caption = f"{self.title}: {plan.method}, {found}"
        return html_table(["device", *keys], body, caption)

    def write(self, folder: Path) -> list[str]:
        """Write plan.json, plan.csv and, where there is a plan, its pictures; return their names.

        Raises:
            RunError: the folder cannot be written.
        """
        with writing(folder, "choose another with --out"):
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / "plan.json", (json.dumps(self.to_dict(), indent=1) + "\n").encode())
            replace_file(folder / "plan.csv", self.to_csv().encode())
        return ["plan.json", "plan.csv", *self.draw(folder)]

    def draw(self, folder: Path) -> list[str]:
        """Write the pictures into an existing folder; return their names."""
        if self.edge is not None:
            return [*self._map(folder, self.edge), *self._leaks(folder)]
        from sflam.report.charts.figure import save
        from sflam.report.charts.plan import draw_allocation, draw_front

        written = []
        if len(self.plan.devices):
            figure = draw_allocation(self.plan, names=self.names, title=self.title)
            save(figure, folder / "allocation.png")
            written.append("allocation.png")
        if self.front:
            plans = (self.plan, *self.others)
            marks = [
                (plan.method, plan.latency, joules)
                for plan, joules in zip(plans, self.weighted, strict=True)
                if plan.status is not Status.INFEASIBLE
            ]
            save(draw_front(self.front, marks=marks, title=self.title), folder / "pareto.png")
            written.append("pareto.png")
        return [*written, *self._leaks(folder)]

    def _leaks(self, folder: Path) -> list[str]:
        from sflam.report.charts.figure import save
        from sflam.report.charts.leakage_trade import draw_leakage

        points = [
            (level.leak, level.plan.latency, level.cut)
            for level in self.leakage
            if level.plan.status is not Status.INFEASIBLE
        ]
        if not points:
            return []
        save(draw_leakage(points, title=self.title), folder / "leakage.png")
        return ["leakage.png"]

    def _map(self, folder: Path, edge: EdgeProblem) -> list[str]:
        from sflam.report.charts.edge_map import draw_map
        from sflam.report.charts.figure import save

        places = edge.network.positions, edge.network.server_positions
        if places[0] is None or places[1] is None:
            return []
        figure = draw_map(self.plan, places[0], places[1], layers=edge.layers, title=self.title)
        save(figure, folder / "map.png")
        return ["map.png"]

    def to_csv(self) -> str:
        """Return a header and a line per device, SI units."""
        rows = [
            {"name": name} | asdict(device)
            for name, device in zip(self.names, self.plan.devices, strict=False)
        ]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else ["name"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()
