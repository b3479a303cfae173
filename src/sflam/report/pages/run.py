"""The page of one run: what it reached, what it cost, who did what in a round, and how to repeat it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from sflam.config import overrides
from sflam.plan import ALL_LOCAL
from sflam.records.charge import Charge
from sflam.records.history import RoundRecord
from sflam.records.saved import SavedRun
from sflam.report.costs import COSTS, is_known, share_of
from sflam.report.pages import page
from sflam.report.pages.bars import bars
from sflam.report.pages.line_chart import Line, legend, line_chart
from sflam.report.pages.markup import Html, element, joined
from sflam.report.pages.timeline import has_phases, joule, numbers_table, phase_legend, phase_table, timeline
from sflam.report.totals import brief, decimal, is_measured, percent, totals
from sflam.units import human_bytes, human_si


def run_page(run: SavedRun) -> str:
    """Return the HTML page of a finished run."""
    job, network = run.job, run.job.network.simulate
    how = f"{job.learn.method} fine-tunes {job.model.name} on {job.data.name}, {job.fleet.devices} devices"
    over = ", over a simulated network" if network else ""
    sections = [("curves", "Curves", curves(run.records))]
    if network:
        sections += [
            ("timeline", "A round, device by device", timelines(run.records)),
            ("allocation", "What each device was given", allocation(run.records[-1])),
            ("energy", "Energy", energy(run.records, job.fleet.devices)),
            ("plan", "Plan and truth", plan_and_truth(run.records)),
        ]
    sections += [
        ("rounds", "Rounds", rounds_table(run.records)),
        ("devices", "Devices and classes", devices_and_classes(run)),
        ("configuration", "Configuration", page.settings(job)),
        ("environment", "Environment", page.environment(run.versions, job)),
        ("repeat", "Repeat it", repeat(run)),
    ]
    return page.page(run.name, f"{how}{over}.", sections, before=page.key_figures(figures(run)))


def figures(run: SavedRun) -> list[tuple[str, str]]:
    """Return the numbers that matter most."""
    result, sums = run.result, totals(run.records)
    found = [
        (percent(_number(result, "accuracy")), "test accuracy"),
        (str(sums.rounds), "rounds"),
        (human_bytes(sums.total_bytes), "over the network"),
    ]
    if sums.virtual_s is not None and sums.energy_j is not None:
        found += [(brief(sums.virtual_s), "virtual time"), (joule(sums.energy_j), "energy")]
    memory, flop = _number(result, "device_memory"), _number(result, "device_flop")
    if memory is not None:
        found.append((human_bytes(memory), "memory of a device"))
    if flop is not None:
        found.append((human_si(flop, "FLOP"), "computed by a device"))
    return found


def curves(records: Sequence[RoundRecord]) -> Html:
    """Return accuracy against every cost, and losses by round."""
    drawn = []
    for title, across, cost in COSTS:
        costs = cost(records)
        if costs is not None and is_known([records], cost):
            points = [(at, 100 * share_of(item)) for at, item in zip(costs, records, strict=True)]
            across = across.replace(", log scale", "")
            line = Line(name="test accuracy", points=points)
            drawn.append(line_chart(title, [line], across=across, upward="test accuracy (%)", percent=True))
    losses = [
        Line(name="training", points=[(item.round + 1, item.loss) for item in records], style=0),
        Line(
            name="test",
            points=[(item.round + 1, item.test_loss) for item in records if is_measured(item.test_loss)],
            style=1,
        ),
    ]
    title = "Loss by round: training (circles), test (squares)"
    drawn.insert(1, line_chart(title, losses, across="round", upward="loss (nats)"))
    return page.charts(*drawn)


def timelines(records: Sequence[RoundRecord]) -> Html:
    """Return the timeline of the last round, and of the longest."""
    shown = [record for record in records if has_phases(record.charge)]
    if not shown:
        return page.paragraph(
            "This history was written before phases were recorded; run it again to see them."
        )
    longest = max(shown, key=lambda record: _charge(record).seconds)
    said = page.paragraph(
        "Each phase is drawn once, with the seconds of all local steps of the round together; in truth the steps take "
        "turns. The dashed line is where the slowest device is done (bold where it is late); adapters move then."
    )
    pieces = [said, phase_legend(), round_timeline(shown[-1], opened=True)]
    if longest is not shown[-1]:
        pieces.append(round_timeline(longest, said=", the longest"))
    return joined(*pieces)


def round_timeline(record: RoundRecord, *, said: str = "", opened: bool = False) -> Html:
    """Return the timeline of one round, and its numbers."""
    charge = _charge(record)
    left = f"; left out: {', '.join(map(str, charge.dropped))}" if charge.dropped else ""
    title = f"Round {record.round + 1}{said}: {brief(charge.seconds)}, {joule(charge.energy)}{left}"
    numbers = page.folded("numbers", phase_table(charge, record.participants))
    return page.folded(title, timeline(charge, record.participants), numbers, opened=opened)


def allocation(record: RoundRecord) -> Html:
    """Return what each device of a round was given: bandwidth, power, bits and clock."""
    charge = _charge(record)
    if not (charge.bandwidth and charge.power and charge.speed):
        return page.paragraph(
            "This history was written before shares were recorded; run it again to see them."
        )
    names = [str(device) for device in record.participants]
    total = max(charge.bandwidth) if max(charge.begin, default=0) > 0 else sum(charge.bandwidth)
    drawn = [
        bars(
            f"Bandwidth, {total / 1e6:.3g} MHz in all",
            names,
            [one / 1e6 for one in charge.bandwidth],
            upward="MHz",
        ),
        bars("Transmit power", names, [one * 1e3 for one in charge.power], upward="mW", style=1),
        bars("Clock", names, [one / 1e9 for one in charge.speed], upward="GHz", style=4),
    ]
    if charge.placed:
        cuts = [float(one) for one in charge.cuts]
        drawn.append(bars("Blocks on the device", names, cuts, upward="blocks", style=3))
    if any(charge.bits_up):
        bits = [float(one) for one in charge.bits_up]
        drawn.insert(2, bars("Bits per activation value", names, bits, upward="bit", style=2))
    if any(charge.sensitivity):
        slow = [one if is_measured(one) else 0.0 for one in charge.sensitivity]
        title = "Slowdown by quantization that the plan counts"
        drawn.append(bars(title, names, slow, upward="chi", style=3))
    gap = "" if charge.gap is None else f", certified within {100 * charge.gap:.2g} % of the best"
    said = (
        f"Round {record.round + 1}, allocator {charge.method}{gap}; planned for round {charge.planned + 1}."
    )
    where = [page.paragraph(_who_is_where(record))] if charge.servers else []
    return joined(page.paragraph(said), *where, page.charts(*drawn))


def _who_is_where(record: RoundRecord) -> str:
    """Return the devices of each server in words."""
    groups: dict[int, list[str]] = {}
    for device, server in zip(record.participants, _charge(record).servers, strict=True):
        groups.setdefault(server, []).append(str(device))
    said = [
        f"{'at no server' if server == ALL_LOCAL else f'at server {server}'}: {', '.join(groups[server])}"
        for server in sorted(groups)
    ]
    return f"Devices {'; '.join(said)}."


def energy(records: Sequence[RoundRecord], devices: int) -> Html:
    """Return joules by kind, by device, and what is left in the batteries."""
    charges = [_charge(record) for record in records]
    spent = [0.0] * devices
    for record in records:
        for device, paid in zip(record.participants, _charge(record).device_j, strict=True):
            spent[device] += paid
    unit, scale = ("J", 1.0) if max(spent) >= 0.1 else ("mJ", 1e3)
    names = list(map(str, range(devices)))
    drawn = [bars("Spent by each device in the run", names, [one * scale for one in spent], upward=unit)]
    kinds = ("compute_j", "transmit_j", "adapter_j", "server_j")
    sums = [sum(getattr(charge, kind) for charge in charges) * scale for kind in kinds]
    words = ("computing", "activations", "adapters", "server")
    drawn.append(bars("Spent on each kind", words, sums, upward=unit, across="kind", style=1))
    if charges[-1].battery_j:
        drawn.append(batteries(records))
    return page.charts(*drawn)


def batteries(records: Sequence[RoundRecord]) -> Html:
    """Return what was left in the batteries after each round."""
    left = [(record.round + 1, each) for record in records if (each := _charge(record).battery_j)]
    lines = [
        Line(name="fullest", points=[(step, max(each)) for step, each in left], style=0),
        Line(name="mean", points=[(step, sum(each) / len(each)) for step, each in left], style=1),
        Line(name="emptiest", points=[(step, min(each)) for step, each in left], style=2),
    ]
    title = "Left in the batteries: fullest (circles), mean (squares), emptiest (triangles)"
    return line_chart(title, lines, across="round", upward="J")


def plan_and_truth(records: Sequence[RoundRecord]) -> Html:
    """Return what plans predicted beside what they came to, per round."""
    drawn = []
    for title, unit, letter in (
        ("Time of a round, without adapters", "s", "s"),
        ("Energy of a round, as the plan counts it", "J", "j"),
    ):
        lines = [
            Line(
                name=said,
                points=[(item.round + 1, getattr(_charge(item), f"{said}_{letter}")) for item in records],
                style=style,
            )
            for style, said in enumerate(("predicted", "charged"))
        ]
        drawn.append(line_chart(title, lines, across="round", upward=unit))
    said = page.paragraph(
        "Predicted when the plan was made; charged for the bits really sent over the channel of the round. They are "
        "the same while the plan is of this round and all samples have equally many tokens."
    )
    return joined(said, legend(("predicted", "charged")), page.charts(*drawn), calibration(records[-1]))


def calibration(record: RoundRecord) -> Html | None:
    """Return what was measured and charged beside what the model says, where ``network.calibrate`` was set."""
    found = _charge(record).calibration
    if found is None:
        return None
    charge = _charge(record)
    rows = [
        ("mini-batch on the fastest device", brief(found.device_s), brief(found.modelled_device_s)),
        ("mini-batch at the server", brief(found.server_s), brief(found.modelled_server_s)),
        ("sent up", human_bytes(found.up_bits / 8), human_bytes(found.modelled_up_bits / 8)),
        ("time of the round", brief(charge.charged_s), brief(found.modelled_s)),
        ("energy of the round", joule(charge.charged_j), joule(found.modelled_j)),
    ]
    body = [joined(*(element("td", cell) for cell in row)) for row in rows]
    heading = element("h3", f"Measured beside modelled, round {record.round + 1}")
    return joined(heading, numbers_table(["", "measured, and charged", "modelled"], body))


def rounds_table(records: Sequence[RoundRecord]) -> Html:
    """Return a row per round."""
    timed = all(record.charge for record in records)
    head = ["round", "loss", "test loss", "accuracy", "up", "down", "adapters"]
    head += ["time", "energy", "devices"] if timed else ["devices"]
    rows = []
    for record in records:
        cells = [str(record.round + 1), decimal(record.loss), decimal(record.test_loss)]
        cells += [percent(record.accuracy), human_bytes(record.bytes_up), human_bytes(record.bytes_down)]
        cells.append(human_bytes(record.total_bytes - record.bytes_up - record.bytes_down))
        if record.charge is not None and timed:
            cells += [brief(record.charge.seconds), joule(record.charge.energy)]
        cells.append(str(len(record.participants)))
        rows.append(joined(*(element("td", cell) for cell in cells)))
    return page.folded(f"{len(rows)} rounds", numbers_table(head, rows), opened=len(rows) <= 20)


def devices_and_classes(run: SavedRun) -> Html:
    """Return the accuracy to expect on each device's data, and that of each class."""
    drawn = []
    classes, last = run.result.get("classes"), run.records[-1].class_accuracy
    per_device = run.result.get("device_accuracy")
    if isinstance(per_device, list) and per_device:
        shares = [100 * share if _is_number(share) else 0.0 for share in per_device]
        names = list(map(str, range(len(shares))))
        drawn.append(bars("Accuracy on each device's mix of classes", names, shares, upward="%", style=2))
    if isinstance(classes, list) and last and len(classes) == len(last):
        right = [100 * share if share is not None else 0.0 for share in last]
        names, title = list(map(str, classes)), "Accuracy on each class, last round"
        drawn.append(bars(title, names, right, upward="%", across="class", style=3))
    return page.charts(*drawn) if drawn else page.paragraph("Not measured: there are no classes.")


def repeat(run: SavedRun) -> Html:
    """Return the exact command."""
    name = "simulate" if run.job.network.simulate else "train"
    said = [one for one in overrides(run.job) if name == "train" or one != "network.simulate=true"]
    words = ["sflam", name, *itertools.chain.from_iterable(("--set", one) for one in said)]
    words += ["--out", f"runs/{run.name}-again"]
    return joined(
        page.code(page.command(words)),
        page.paragraph(
            "Settings that are not named are the defaults of this version. Paths are those of the run."
        ),
    )


def _charge(record: RoundRecord) -> Charge:
    assert record.charge is not None, "only simulated runs get here"
    return record.charge


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and is_measured(float(value))  # type: ignore[arg-type]


def _number(values: dict[str, object], key: str) -> float | None:
    value = values.get(key)
    return float(value) if type(value) in (int, float) else None  # type: ignore[arg-type]
