"""A served run on a page: what its rounds took beside what was expected of them, and how its devices fared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sflam.records.history import RoundRecord
from sflam.records.served_round import PHASES, CutMove, ServedRound, ServerMove
from sflam.report.charts.lines import Line, line_panel
from sflam.report.charts.style import look
from sflam.report.pages.inline import charts
from sflam.report.pages.page import NumberTable
from sflam.report.totals import brief
from sflam.units import human_bytes

WORDS = {
    "compute_s": "computing",
    "up_s": "sending",
    "wait_s": "server",
    "down_s": "receiving",
    "adapter_s": "adapters",
}


def served_part(records: Sequence[RoundRecord]) -> dict[str, Any]:
    """Return what the page shows where a run was served, and its phases were measured; else that it was not."""
    shown = [record for record in records if record.measured is not None and record.measured.compute_s]
    if not shown:
        return {"served": False}
    return {
        "served": True,
        "served_rounds": charts([_rounds(shown)]),
        "served_last": shown[-1].round + 1,
        "served_phases": phase_numbers(shown[-1]),
        "served_devices": device_numbers(shown),
        "served_moves": move_numbers([move for one in shown for move in _of(one).moves], "blocks"),
        "server_moves": move_numbers([move for one in shown for move in _of(one).server_moves], "server"),
    }


def phase_numbers(record: RoundRecord) -> NumberTable:
    """Return the seconds of every phase and device of a round, each with what was expected of it."""
    found, expected = _of(record), _of(record).predicted
    head = ["device", *WORDS.values(), "done after", "bits up", "bits down"]
    if expected is not None:
        head.insert(1, "")
    rows = []
    for place, device in enumerate(record.participants):
        bits = [str(found.bits_up[place]), str(found.bits_down[place])]
        took = [getattr(found, name)[place] for name in PHASES]
        cells = [*map(brief, took), brief(found.finish[place]), *bits]
        rows.append([str(device), *["measured"] * (expected is not None), *cells])
        if expected is not None:
            wanted = [getattr(expected, name)[place] for name in PHASES]
            rows.append(["", "expected", *map(brief, wanted), brief(sum(wanted)), "", ""])
    return NumberTable(head, rows)


def device_numbers(records: Sequence[RoundRecord]) -> NumberTable:
    """Return how the machines of devices fared, as they report it: the most of the run, and the last battery."""
    found: dict[int, dict[str, list[Any]]] = {}
    for record in records:
        one = _of(record)
        for place, device in enumerate(record.participants):
            for name in ("memory", "temperature", "throttled", "battery"):
                values = getattr(one, name)
                if values and values[place] not in (None, 0):
                    found.setdefault(device, {}).setdefault(name, []).append(values[place])
    rows = []
    for device, own in sorted(found.items()):
        heat, slow, left = (own.get(name, []) for name in ("temperature", "throttled", "battery"))
        rows.append(
            [
                str(device),
                human_bytes(max(own["memory"])) if "memory" in own else "-",
                f"{max(heat):.0f} °C" if heat else "-",
                f"in {sum(slow)} rounds" if any(slow) else "-",
                f"{100 * left[-1]:.0f} %" if left else "-",
            ]
        )
    return NumberTable(["device", "most memory", "hottest", "throttled", "battery"], rows)


def move_numbers(moves: Sequence[CutMove] | Sequence[ServerMove], what: str) -> NumberTable:
    """Return the devices that were given other blocks, or another server, and why."""
    rows = [
        [str(move.round + 1), str(move.device), str(move.before), str(move.to), move.reason] for move in moves
    ]
    return NumberTable(["round", "device", f"{what} before", what, "because"], rows)


def _rounds(records: Sequence[RoundRecord]) -> Any:
    took = [(record.round + 1, _of(record).seconds) for record in records]
    expected = [
        (record.round + 1, one.seconds) for record in records if (one := _of(record).predicted) is not None
    ]
    lines = [Line(name="measured", points=took, look=look(0))]
    if expected:
        lines.append(Line(name="expected", points=expected, look=look(1)))
    return line_panel("Time of a round", lines, across="round", upward="s")


def _of(record: RoundRecord) -> ServedRound:
    assert record.measured is not None, "only served rounds get here"
    return record.measured
