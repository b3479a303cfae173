"""The page of one run: what it reached, what it cost, who did what in a round, and how to repeat it."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

from markupsafe import Markup

from sflam.config import overrides
from sflam.records.deviation import deviating
from sflam.records.history import RoundRecord, part_of
from sflam.records.saved import SavedRun
from sflam.records.saved_rates import is_finite
from sflam.report.charts.bars import bar_panel
from sflam.report.charts.curves import curve_panels
from sflam.report.charts.figure import Panel
from sflam.report.charts.lines import Line, line_panel
from sflam.report.charts.partition import partition_panel
from sflam.report.charts.style import ON_WHITE, look
from sflam.report.charts.timeline import has_phases
from sflam.report.pages.inline import charts
from sflam.report.pages.page import NumberTable, command, environment, render
from sflam.report.pages.rounds import allocation, charge_of, timeline
from sflam.report.pages.served import served_part
from sflam.report.protection import secured_line
from sflam.report.terminal.run_table import MEASURED, cells, headers_of
from sflam.report.totals import totals


def run_page(run: SavedRun) -> str:
    """Return the HTML page of a finished run."""
    job, records, network = run.job, run.records, run.job.network.simulate
    columns = headers_of(records, [*MEASURED[:-1], *["virtual time", "energy"] * network, "devices"])
    return render(
        "run.html.jinja",
        job,
        title=run.name,
        network=network,
        sums=totals(records),
        result={key: value for key, value in run.result.items() if type(value) in (int, float)},
        curves=charts(curve_panels(records, job.learn.method)),
        rounds=NumberTable(columns, [cells(columns, record) for record in records]),
        devices=_devices_and_classes(run),
        environment=environment(run.versions, job),
        command=_repeat(run),
        secured=secured_line(records),
        deviating=[one.line for one in deviating(records)],
        **_simulated(run) if network else {},
        **served_part(records),
    )


def _simulated(run: SavedRun) -> dict[str, object]:
    """Return what the page shows where a network was simulated."""
    records, last = run.records, run.records[-1]
    return {
        "timelines": _timelines(records),
        "given": allocation(last),
        "energy": charts(_energy(records, run.job.fleet.devices)),
        "plan": charts(_plan_and_truth(records)),
        "charge": last.charge,
        "last": last.round + 1,
    }


def _timelines(records: Sequence[RoundRecord]) -> list[dict[str, object]]:
    """Return the timeline of the last round, and of the longest; none of histories without phases."""
    shown = [record for record in records if has_phases(record.charge)]
    if not shown:
        return []
    longest = max(shown, key=lambda record: charge_of(record).seconds)
    found = [timeline(shown[-1], opened=True)]
    return found if longest is shown[-1] else [*found, timeline(longest, name=", the longest")]


def _energy(records: Sequence[RoundRecord], devices: int) -> list[Panel]:
    """Return joules by device, by kind, and what is left in the batteries."""
    charges = [charge_of(record) for record in records]
    spent = [0.0] * devices
    for record, charge in zip(records, charges, strict=True):
        for device, paid in zip(record.participants, charge.device_j, strict=True):
            spent[device] += paid
    unit, scale = ("J", 1.0) if max(spent) >= 0.1 else ("mJ", 1e3)
    own = {"": [item * scale for item in spent]}
    kinds = {
        "computing": "compute_j",
        "activations": "transmit_j",
        "adapters": "adapter_j",
        "server": "server_j",
    }
    if any(charge.receive_j for charge in charges):
        kinds["receiving"] = "receive_j"
    if any(charge.idle_j for charge in charges):
        kinds["waiting"] = "idle_j"
    if any(charge.rest_j for charge in charges):
        kinds["beyond plans"] = "rest_j"
    sums = {"": [sum(getattr(charge, kind) for charge in charges) * scale for kind in kinds.values()]}
    tones = {"computing": "compute", "activations": "up", "adapters": "adapters", "server": "server"}
    tints = [ON_WHITE[tones.get(kind, "waiting")] for kind in kinds]
    names = list(map(str, range(devices)))
    panels: list[Panel] = [
        bar_panel("Spent by each device in the run", names, own, upward=unit),
        bar_panel("Spent on each kind", list(kinds), sums, upward=unit, across="kind", colours=tints),
    ]
    left = [(record.round + 1, charge_of(record).battery_j) for record in records]
    if charges[-1].battery_j:
        steps = [(step, each) for step, each in left if each]
        levels = {
            "fullest": [(step, max(each)) for step, each in steps],
            "mean": [(step, statistics.fmean(each)) for step, each in steps],
            "emptiest": [(step, min(each)) for step, each in steps],
        }
        lines = [
            Line(name=name, points=points, look=look(n)) for n, (name, points) in enumerate(levels.items())
        ]
        panels.append(line_panel("Left in the batteries", lines, across="round", upward="J"))
    return panels


def _plan_and_truth(records: Sequence[RoundRecord]) -> list[Panel]:
    """Return what plans predicted beside what was charged, per round."""
    panels: list[Panel] = []
    for title, unit in (
        ("Time of a round, as the plan counts it", "s"),
        ("Energy of a round, as the plan counts it", "J"),
    ):
        lines = [
            Line(
                name=name,
                points=[(item.round + 1, getattr(item.charge, f"{name}_{unit.lower()}")) for item in records],
                look=look(number),
            )
            for number, name in enumerate(("predicted", "charged"))
        ]
        panels.append(line_panel(title, lines, across="round", upward=unit))
    return panels


def _devices_and_classes(run: SavedRun) -> list[Markup]:
    """Return what each device holds, the accuracy to expect there, its training loss; accuracy of each class."""
    panels: list[Panel] = [partition_panel(run.partition)] if run.partition else []
    classes, last = run.result.get("classes"), run.records[-1].class_accuracy
    per_device = run.result.get("device_accuracy")
    if isinstance(per_device, list) and per_device:
        shares = {"": [100 * share if is_finite(share) else 0.0 for share in per_device]}
        names = list(map(str, range(len(per_device))))
        panels.append(bar_panel("Test accuracy on each device's mix of classes", names, shares, upward="%"))
    if any(loss is not None for loss in run.records[-1].device_loss):
        trained = {"": [loss or 0.0 for loss in run.records[-1].device_loss]}
        names, title = (
            list(map(str, run.records[-1].participants)),
            "Training loss of each device, last round",
        )
        panels.append(bar_panel(title, names, trained, upward="nats", colours=[ON_WHITE["s1"]]))
    if isinstance(classes, list) and last and len(classes) == len(last):
        right = {"": [100 * share if share is not None else 0.0 for share in last]}
        names = list(map(str, classes))
        title = f"{part_of(run.records).capitalize()} accuracy on each class, last round"
        panels.append(bar_panel(title, names, right, upward="%", across="class", colours=[ON_WHITE["s2"]]))
    return charts(panels)


def _repeat(run: SavedRun) -> str:
    """Return the exact command."""
    name = "simulate" if run.job.network.simulate else "serve" if run.job.fleet.plan else "train"
    changed = [
        override
        for override in overrides(run.job)
        if name != "simulate" or override != "network.simulate=true"
    ]
    words = ["sflam", name, *itertools.chain.from_iterable(("--set", item) for item in changed)]
    return command([*words, "--out", f"runs/{run.name}-again"])
