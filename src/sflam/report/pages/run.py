"""The page of one run: what it reached, what it cost, who did what in a round, and how to repeat it."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

from markupsafe import Markup

from sflam.config import overrides
from sflam.records.history import RoundRecord
from sflam.records.saved import SavedRun
from sflam.report.charts.bars import bar_panel
from sflam.report.charts.curves import curve_panels
from sflam.report.charts.figure import Panel
from sflam.report.charts.lines import Line, line_panel
from sflam.report.charts.style import ON_WHITE, look
from sflam.report.charts.timeline import has_phases
from sflam.report.pages.inline import charts
from sflam.report.pages.page import NumberTable, command, environment, render
from sflam.report.pages.rounds import allocation, charge_of, timeline
from sflam.report.totals import brief, decimal, is_measured, joules, percent, totals
from sflam.units import human_bytes, human_si


def run_page(run: SavedRun) -> str:
    """Return the HTML page of a finished run."""
    job, records, network = run.job, run.records, run.job.network.simulate
    how = f"{job.learn.method} fine-tunes {job.model.name} on {job.data.name}, {job.fleet.devices} devices"
    sections = [
        ("curves", "Curves"),
        ("timeline", "A round, device by device" * network),
        ("allocation", "What each device was given" * network),
        ("energy", "Energy" * network),
        ("plan", "Plan and truth" * network),
        ("rounds", "Rounds"),
        ("devices", "Devices and classes"),
        ("configuration", "Configuration"),
        ("environment", "Environment"),
        ("repeat", "Repeat it"),
    ]
    simulated = {}
    if network:
        simulated = {
            "timelines": _timelines(records),
            "given": allocation(records[-1]),
            "energy": charts(_energy(records, job.fleet.devices)),
            "plan": charts(_plan_and_truth(records)),
            "calibration": _calibration(records[-1]),
            "last": records[-1].round + 1,
        }
    return render(
        "run.html.jinja",
        sections,
        job,
        title=run.name,
        beneath=f"{how}{', over a simulated network' * network}.",
        figures=_figures(run),
        curves=charts(curve_panels(records, job.learn.method)),
        rounds=_rounds(records),
        devices=_devices_and_classes(run),
        environment=environment(run.versions, job),
        command=_repeat(run),
        **simulated,
    )


def _figures(run: SavedRun) -> list[tuple[str, str]]:
    """Return the numbers that matter most."""
    result, sums = run.result, totals(run.records)
    found = [
        (percent(_number(result, "accuracy")), "test accuracy"),
        (str(sums.rounds), "rounds"),
        (human_bytes(sums.total_bytes), "over the network"),
    ]
    if sums.virtual_s is not None and sums.energy_j is not None:
        found += [(brief(sums.virtual_s), "virtual time"), (joules(sums.energy_j), "energy")]
    if (memory := _number(result, "device_memory")) is not None:
        found.append((human_bytes(memory), "memory of a device"))
    if (flop := _number(result, "device_flop")) is not None:
        found.append((human_si(flop, "FLOP"), "computed by a device"))
    return found


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
    own = {"": [one * scale for one in spent]}
    kinds = {
        "computing": "compute_j",
        "activations": "transmit_j",
        "adapters": "adapter_j",
        "server": "server_j",
    }
    sums = {"": [sum(getattr(charge, kind) for charge in charges) * scale for kind in kinds.values()]}
    tints = [ON_WHITE[name] for name in ("compute", "up", "adapters", "server")]
    names = list(map(str, range(devices)))
    panels = [
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
    panels = []
    for title, unit in (
        ("Time of a round, without adapters", "s"),
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


def _calibration(record: RoundRecord) -> NumberTable | None:
    """Return what was measured and charged beside what the model says, where ``network.calibrate`` was set."""
    charge = charge_of(record)
    if (found := charge.calibration) is None:
        return None
    rows = [
        ("mini-batch on the fastest device", brief(found.device_s), brief(found.modelled_device_s)),
        ("mini-batch at the server", brief(found.server_s), brief(found.modelled_server_s)),
        ("sent up", human_bytes(found.up_bits / 8), human_bytes(found.modelled_up_bits / 8)),
        ("time of the round", brief(charge.charged_s), brief(found.modelled_s)),
        ("energy of the round", joules(charge.charged_j), joules(found.modelled_j)),
    ]
    return NumberTable(["", "measured, and charged", "modelled"], rows)


def _rounds(records: Sequence[RoundRecord]) -> NumberTable:
    """Return a row per round."""
    timed = all(record.charge for record in records)
    head = ["round", "loss", "test loss", "accuracy", "up", "down", "adapters"]
    rows = []
    for record in records:
        cells = [str(record.round + 1), decimal(record.loss), decimal(record.test_loss)]
        cells += [percent(record.accuracy), human_bytes(record.bytes_up), human_bytes(record.bytes_down)]
        cells.append(human_bytes(record.total_bytes - record.bytes_up - record.bytes_down))
        if record.charge is not None and timed:
            cells += [brief(record.charge.seconds), joules(record.charge.energy)]
        rows.append([*cells, str(len(record.participants))])
    return NumberTable([*head, *["time", "energy"] * timed, "devices"], rows)


def _devices_and_classes(run: SavedRun) -> list[Markup]:
    """Return the accuracy to expect on each device's data, and that of each class."""
    panels = []
    classes, last = run.result.get("classes"), run.records[-1].class_accuracy
    per_device = run.result.get("device_accuracy")
    if isinstance(per_device, list) and per_device:
        shares = {"": [100 * share if _is_number(share) else 0.0 for share in per_device]}
        names = list(map(str, range(len(per_device))))
        panels.append(bar_panel("Accuracy on each device's mix of classes", names, shares, upward="%"))
    if isinstance(classes, list) and last and len(classes) == len(last):
        right = {"": [100 * share if share is not None else 0.0 for share in last]}
        names, title = list(map(str, classes)), "Accuracy on each class, last round"
        panels.append(bar_panel(title, names, right, upward="%", across="class", colours=[ON_WHITE["s2"]]))
    return charts(panels)


def _repeat(run: SavedRun) -> str:
    """Return the exact command."""
    name = "simulate" if run.job.network.simulate else "train"
    changed = [one for one in overrides(run.job) if name == "train" or one != "network.simulate=true"]
    words = ["sflam", name, *itertools.chain.from_iterable(("--set", one) for one in changed)]
    return command([*words, "--out", f"runs/{run.name}-again"])


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and is_measured(float(value))  # type: ignore[arg-type]


def _number(values: dict[str, object], key: str) -> float | None:
    value = values.get(key)
    return float(value) if type(value) in (int, float) else None  # type: ignore[arg-type]
