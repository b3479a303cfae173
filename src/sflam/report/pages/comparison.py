"""The page of a comparison: tables, accuracy against every cost, sweeps, and a round of every method."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sflam.records.saved import FRONT, SavedComparison
from sflam.report.costs import COSTS, is_known, share_of
from sflam.report.pages import page
from sflam.report.pages.bars import bars
from sflam.report.pages.line_chart import Line, legend, line_chart
from sflam.report.pages.markup import Html, element, joined
from sflam.report.pages.run import allocation, round_timeline
from sflam.report.pages.timeline import has_phases, numbers_table, phase_legend
from sflam.report.terminal.comparison_table import flops, joules, said
from sflam.report.terminal.rate_table import REUSED, rate_rows, rate_title
from sflam.report.totals import brief, percent
from sflam.units import human_bytes


def comparison_page(found: SavedComparison) -> str:
    """Return the HTML page of a finished comparison."""
    rows: Mapping[str, Mapping[str, Any]] = found.said["methods"]
    first = next(iter(found.runs.values()))[0]
    job, target = first.job, found.said["target"]
    sections = [
        ("results", "Results", results(rows, found.said)),
        ("target", f"Cost of {percent(target['accuracy'])}", to_target(rows, target)),
        ("curves", "Accuracy against what it costs", curves(found)),
    ]
    if found.said["rates"]:
        sections.insert(1, ("rates", "Learning rates", learning_rates(found.said["rates"], rows)))
    if found.sweeps:
        sections.append(("sweeps", "Sweeps", sweeps(found, rows)))
    sections += [
        ("devices", "What it asks of a device", of_a_device(rows)),
        ("timeline", "A round, device by device", timelines(found)),
        ("allocation", "What each device was given", allocations(found)),
        ("configuration", "Configuration", settings(found)),
        ("environment", "Environment", page.environment(first.versions, job)),
        ("repeat", "Repeat it", repeat(found)),
    ]
    seeds = found.said["seeds"]
    beneath = (
        f"{len(rows)} methods fine-tune {job.model.name} on {job.data.name}, {job.fleet.devices} devices, "
        f"{seeds} seed{'s' * (seeds != 1)}: the same samples, mini-batches and network for each."
    )
    return page.page(found.name, beneath, sections, before=page.key_figures(figures(rows, seeds)))


def figures(rows: Mapping[str, Mapping[str, Any]], seeds: int) -> list[tuple[str, str]]:
    """Return the numbers that matter most: who is best at what."""
    found = [(str(len(rows)), "methods"), (str(seeds), "seeds" if seeds != 1 else "seed")]
    best = max(rows.items(), key=lambda pair: pair[1]["accuracy"])
    found.append((percent(best[1]["accuracy"]), f"most accurate: {best[0]}"))
    for key, how, words in (("virtual_s", brief, "fastest"), ("energy_j", joules, "fewest joules")):
        known = {name: row[key] for name, row in rows.items() if row[key] is not None}
        if known:
            name = min(known, key=lambda one: float(known[one]))
            found.append((how(known[name]), f"{words}: {name}"))
    return found


def results(rows: Mapping[str, Mapping[str, Any]], told: Mapping[str, Any]) -> Html:
    """Return the means over seeds, the best accuracy first, and which runs failed."""
    rated = bool(told["rates"])
    head = [
        "method",
        *(["rate"] if rated else []),
        "accuracy",
        "rounds",
        "time",
        "energy",
        "up",
        "down",
        "memory",
        "computing",
    ]
    body = []
    for name, row in sorted(rows.items(), key=lambda pair: -pair[1]["accuracy"]):
        spread = row["accuracy_spread"]
        cells = [name, *([f"{row['learning_rate']:g}"] if rated else [])]
        cells += [percent(row["accuracy"]) + ("" if spread is None else f" ± {100 * spread:.1f}")]
        cells += [f"{row['rounds']:g}", said(row["virtual_s"], brief), said(row["energy_j"], joules)]
        cells += [said(row[key], human_bytes) for key in ("bytes_up", "bytes_down", "device_memory_bytes")]
        cells.append(said(row["device_flop"], flops))
        body.append(joined(*(element("td", cell) for cell in cells)))
    return joined(
        numbers_table(head, body),
        page.paragraph(
            "Means over seeds; ± is the standard deviation of the accuracy. Memory and computing are a device's. "
            "- : no network is simulated for this method, or nothing is on a device."
        ),
        *(page.paragraph(f"Failed, and left out: run {run}: {why}") for run, why in told["failed"].items()),
    )


def learning_rates(rates: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> Html:
    """Return what every method came to at every rate of the grid."""
    body = [
        joined(*(element("td", cell) for cell in (name, best, *cells)))
        for name, best, cells in rate_rows(rates, rows)
    ]
    head = ["method", "rate", *(f"at {rate:g}" for rate in rates["grid"])]
    title = rate_title(rates)
    return joined(
        page.paragraph(f"{title[0].upper()}{title[1:]}; {REUSED}. All other numbers are at this rate."),
        numbers_table(head, body),
    )


def to_target(rows: Mapping[str, Mapping[str, Any]], target: Mapping[str, Any]) -> Html:
    """Return what reaching the target accuracy cost, the fewest rounds first."""
    head = ["method", "seeds that reach it", "rounds", "time", "energy", "sent, both ways"]
    body = []
    costs = {name: row["to_target"] for name, row in rows.items()}
    for name, cost in sorted(costs.items(), key=lambda pair: pair[1]["rounds"] or float("inf")):
        cells = [name, str(cost["reached"]), said(cost["rounds"], lambda value: f"{value:.3g}")]
        cells += [
            said(cost["virtual_s"], brief),
            said(cost["energy_j"], joules),
            said(cost["bytes"], human_bytes),
        ]
        body.append(joined(*(element("td", cell) for cell in cells)))
    return joined(
        page.paragraph(
            f"First round with a test accuracy of {percent(target['accuracy'])} or more: {target['rule']}."
        ),
        numbers_table(head, body),
    )


def curves(found: SavedComparison) -> Html:
    """Return accuracy against rounds, bytes, virtual time and energy: means over seeds, in bands of all seeds."""
    drawn = []
    for title, across, cost in COSTS:
        lines = []
        for style, (name, ones) in enumerate(found.runs.items()):
            runs = [run.records for run in ones]
            if not is_known(runs, cost):
                continue
            rounds = min(map(len, runs))
            shares = np.array([[100 * share_of(item) for item in run[:rounds]] for run in runs])
            costs = np.array([list(cost(run) or ())[:rounds] for run in runs]).mean(axis=0)
            seen = np.isfinite(shares).all(axis=0)
            low, mean, high = (how(shares[:, seen], axis=0).tolist() for how in (np.min, np.mean, np.max))
            at = costs[seen].tolist()
            band = list(zip(at, low, high, strict=True)) if len(runs) > 1 else []
            lines.append(Line(name=name, points=list(zip(at, mean, strict=True)), style=style, band=band))
        if lines:
            log = "log" in across
            chart = line_chart(
                title, lines, across=across, upward="test accuracy (%)", percent=True, log_x=log
            )
            drawn.append(chart)
    return joined(legend(list(found.runs)), page.charts(*drawn))


def sweeps(found: SavedComparison, rows: Mapping[str, Mapping[str, Any]]) -> Html:
    """Return accuracy against every swept setting, and time against energy along the weight."""
    styles = {name: style for style, name in enumerate(found.runs)}
    drawn = []
    for axis, lines in found.sweeps.items():
        if axis == FRONT:
            drawn.append(front(lines, rows, styles))
            continue
        label = str(found.said["labels"][axis])
        plain = [
            Line(
                name=name,
                points=[(value, 100 * row["accuracy"]) for value, row in line],
                style=styles[name],
            )
            for name, line in lines.items()
        ]
        drawn.append(
            line_chart(
                f"Accuracy by {label.partition(':')[0].partition(' of ')[0]}",
                plain,
                across=label,
                upward="test accuracy (%)",
                percent=True,
                log_x=True,
                ticks_at=sorted({value for line in lines.values() for value, _ in line}),
            )
        )
    return joined(legend(list(found.runs)), page.charts(*drawn))


def front(
    lines: Mapping[str, Sequence[tuple[float, Mapping[str, Any]]]],
    rows: Mapping[str, Mapping[str, Any]],
    styles: Mapping[str, int],
) -> Html:
    """Return virtual seconds against joules of a run along the weight; other methods are single points."""
    along = []
    for name, line in lines.items():
        known = [one for one in line if None not in (one[1]["virtual_s"], one[1]["energy_j"])]
        points = [(row["virtual_s"], row["energy_j"]) for _, row in known]
        notes = [f"{value:g}" for value, _ in known]
        along.append(Line(name=name, points=points, notes=notes, style=styles[name]))
    alone = [
        Line(name=name, points=[(row["virtual_s"], row["energy_j"])], style=styles[name], joined=False)
        for name, row in rows.items()
        if name not in lines and row["virtual_s"] is not None and row["energy_j"] is not None
    ]
    return line_chart(
        "Time against energy of a run; numbers are weights of time",
        [*along, *alone],
        across="virtual time (s, log scale)",
        upward="energy (J, log scale)",
        log_x=True,
        log_y=True,
    )


def of_a_device(rows: Mapping[str, Mapping[str, Any]]) -> Html:
    """Return memory and computing of a device, method by method."""
    drawn: list[Html] = []
    for key, title, scale, unit in (
        ("device_memory_bytes", "Memory, estimated", 1e6, "MB"),
        ("device_flop", "Computing in the run, by the cost model", 1e9, "GFLOP"),
    ):
        known = {name: row[key] / scale for name, row in rows.items() if row[key] is not None}
        if known:
            drawn.append(
                bars(title, list(known), list(known.values()), upward=unit, across="method", style=len(drawn))
            )
    return page.charts(*drawn) if drawn else page.paragraph("Nothing is on a device.")


def timelines(found: SavedComparison) -> Html:
    """Return the last round of every method's first seed."""
    pieces: list[Html] = []
    for name, runs in found.runs.items():
        last = runs[0].records[-1]
        if has_phases(last.charge):
            box = element("div", element("h3", name), round_timeline(last, opened=not pieces))
            pieces.append(box)
    if not pieces:
        return page.paragraph("No network was simulated.")
    return joined(page.paragraph("The last round of each method's first seed."), phase_legend(), *pieces)


def allocations(found: SavedComparison) -> Html:
    """Return what devices were given in the last round of every method's first seed."""
    pieces = [
        page.folded(name, allocation(runs[0].records[-1]), opened=index == 0)
        for index, (name, runs) in enumerate(
            (name, runs) for name, runs in found.runs.items() if runs[0].records[-1].charge is not None
        )
    ]
    return joined(*pieces) if pieces else page.paragraph("No network was simulated.")


def settings(found: SavedComparison) -> Html:
    """Return the configuration of the first method's first run, and which runs there are."""
    name, runs = next(iter(found.runs.items()))
    rows = [
        joined(element("td", method), element("td", str(run.job.seed)), element("td", run.name))
        for method, ones in found.runs.items()
        for run in ones
    ]
    return joined(
        page.paragraph(
            f"Of {name}, seed {runs[0].job.seed}; the others differ in learn.method, in what that method cannot do"
            f"{', and in learn.lr' if found.said['rates'] else ''}."
        ),
        page.settings(runs[0].job),
        page.folded("folders of the runs", numbers_table(["method", "seed", "folder"], rows)),
    )


def repeat(found: SavedComparison) -> Html:
    """Return the exact command."""
    said = found.said
    usual = [str(one) for one in said["set"] if one != "network.simulate=true"]
    if "network.simulate=true" not in said["set"]:
        usual.append("network.simulate=false")
    words = ["sflam", "compare", *itertools.chain.from_iterable(("--set", one) for one in usual)]
    words += ["--methods", ",".join(map(str, said["asked"])), "--seeds", str(said["seeds"])]
    for option, values in said["options"].items():
        words += [str(option), ",".join(f"{float(value):g}" for value in values)]
    if said["rates"]:
        words += ["--rates", ",".join(repr(rate) for rate in said["rates"]["grid"])]
    if said["target"]["rule"] == "as given":
        words += ["--target", f"{said['target']['accuracy']:g}"]
    return page.code(page.command([*words, "--out", f"runs/{found.name}-again"]))
