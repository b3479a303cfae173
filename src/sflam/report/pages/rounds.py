"""One simulated round on a page: who did what and when, and what each device was given."""

from __future__ import annotations

from typing import Any

from sflam.errors import RunError
from sflam.plan import ALL_LOCAL
from sflam.records.charge import Charge
from sflam.records.history import RoundRecord
from sflam.report.charts.bars import bar_panel
from sflam.report.charts.style import ON_WHITE
from sflam.report.charts.timeline import PHASES, draw_timeline
from sflam.report.pages.inline import charts, inline
from sflam.report.pages.page import NumberTable
from sflam.report.totals import brief, is_measured, joules


def timeline(record: RoundRecord, *, name: str = "", opened: bool = False) -> dict[str, Any]:
    """Return the timeline of a round with its numbers, for ``parts.html.jinja``."""
    charge = charge_of(record)
    gone = charge.dropped + (charge.close.left_out if charge.close else ())
    left = f"; left out: {', '.join(map(str, gone))}" if gone else ""
    return {
        "title": f"Round {record.round + 1}{name}: {brief(charge.seconds)}, {joules(charge.energy)}{left}",
        "chart": inline(draw_timeline(charge, record.participants), "chart wide"),
        "numbers": phase_table(record),
        "opened": opened,
    }


def phase_table(record: RoundRecord) -> NumberTable:
    """Return the seconds of every phase and device."""
    charge, names = charge_of(record), [name for _, name in PHASES.values() if name]
    words = [words for words, name in PHASES.values() if name]
    head = ["device", *["server", "blocks"] * charge.placed, *words, "done after", "bits up", "energy"]
    rows = []
    for place, device in enumerate(record.participants):
        server = charge.servers[place] if charge.servers else 0
        where = ["none" if server == ALL_LOCAL else str(server), str(charge.cuts[place])]
        times = [*(getattr(charge, name)[place] for name in names), charge.finish[place]]
        cells = [str(device), *where * charge.placed, *map(brief, times)]
        rows.append([*cells, str(charge.bits_up[place] or "-"), joules(charge.device_j[place])])
    return NumberTable(head, rows)


def allocation(record: RoundRecord) -> dict[str, Any] | None:
    """Return what each device of a round was given, in words and charts; None where it was not recorded."""
    charge = charge_of(record)
    if not (charge.bandwidth and charge.power and charge.speed):
        return None
    total = (
        max(charge.bandwidth) if charge.airtime or max(charge.begin, default=0) > 0 else sum(charge.bandwidth)
    )
    band = (f"Bandwidth, {total / 1e6:.3g} MHz in all", "MHz", [item / 1e6 for item in charge.bandwidth])
    if charge.airtime:
        band = (f"Airtime of {total / 1e6:.3g} MHz", "%", [100 * item for item in charge.airtime])
    given = [
        band,
        ("Transmit power", "mW", [item * 1e3 for item in charge.power]),
        ("Clock", "GHz", [item / 1e9 for item in charge.speed]),
    ]
    if any(charge.bits_up):
        given.append(("Bits per activation value", "bit", list(map(float, charge.bits_up))))
    if charge.placed:
        given.append(("Blocks on the device", "blocks", list(map(float, charge.cuts))))
    if any(charge.sensitivity):
        slow = [item if is_measured(item) else 0.0 for item in charge.sensitivity]
        given.append(("Slowdown by quantization that the plan counts", "chi", slow))
    names = list(map(str, record.participants))
    panels = [
        bar_panel(title, names, {"": values}, upward=unit, colours=[ON_WHITE[f"s{number}"]])
        for number, (title, unit, values) in enumerate(given)
    ]
    gap = "" if charge.gap is None else f", certified within {100 * charge.gap:.2g} % of the best"
    words = (
        f"Round {record.round + 1}, allocator {charge.method}{gap}; planned for round {charge.planned + 1}."
    )
    return {"words": f"{words}{_who_is_where(record)}", "charts": charts(panels)}


def charge_of(record: RoundRecord) -> Charge:
    """Return what a round of a simulated run cost; raises RunError where the record lacks it."""
    if record.charge is None:
        raise RunError(
            f"history.jsonl is damaged: round {record.round + 1} of this simulated run has no charge; put the right "
            "one back, or start a new run"
        )
    return record.charge


def _who_is_where(record: RoundRecord) -> str:
    """Return the devices of each server in words; nothing where there is one server."""
    servers, groups = charge_of(record).servers, dict[int, list[str]]()
    for device, server in zip(record.participants, servers, strict=bool(servers)):
        groups.setdefault(server, []).append(str(device))
    words = [
        f"at {'no server' if server == ALL_LOCAL else f'server {server}'}: {', '.join(groups[server])}"
        for server in sorted(groups)
    ]
    return f" Devices {'; '.join(words)}." if words else ""
