"""The live page: devices, round, accuracy, losses, bytes. Numbers only: it needs no token, so it shows no names."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jinja2 import Environment, PackageLoader

from sflam.records.history import RoundRecord, part_of
from sflam.serve.dispatch import Dispatch
from sflam.serve.orders import Orders
from sflam.serve.round_stats import Reading, RoundStats
from sflam.serve.timeline import MOST, RoundTimeline
from sflam.serve.trunks.trunk_hosts import TrunkSeen
from sflam.units import human_bytes

PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:",
    "X-Content-Type-Options": "nosniff",
}
NAMED = 12
"""Devices that are named where some are waited for."""
LAST = 12
"""Rounds in the table."""

TEMPLATES = Environment(
    loader=PackageLoader("sflam.serve", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
TEMPLATES.filters["bytes"] = human_bytes


@dataclass
class ProgressBoard:
    """The rounds of a run.

    Attributes:
        rounds: how many there are to be.
        records: those done.
        name: of the job, where the process serves several.
        error: why it is served no more, where it failed.
    """

    rounds: int = 0
    records: Sequence[RoundRecord] = field(default_factory=list)
    name: str = ""
    error: str = ""

    @property
    def accuracy(self) -> float | None:
        """The last one measured, in [0, 1]."""
        scores = [record.evaluated_accuracy for record in self.records]
        return next((score for score in reversed(scores) if score is not None), None)

    @property
    def part(self) -> str:
        """The part of the data it was measured on."""
        return part_of(self.records)

    @property
    def loss(self) -> float | None:
        """Training loss of the last round."""
        return self.records[-1].loss if self.records else None

    @property
    def bytes_up(self) -> int:
        """Bytes of bodies devices sent in the rounds done."""
        return sum(record.bytes_up + record.adapter_bytes_up for record in self.records)

    @property
    def bytes_down(self) -> int:
        """Bytes of bodies they received."""
        return sum(record.bytes_down + record.adapter_bytes_down for record in self.records)


def page(
    dispatch: Dispatch,
    stats: RoundStats,
    board: ProgressBoard,
    orders: Orders,
    trunks: Sequence[TrunkSeen] = (),
) -> str:
    """Return the page; :mod:`sflam.serve.live_stream` sends its main part again whenever it has changed."""
    readings = stats.readings()
    with dispatch.looked() as session:
        here = set(session.present(dispatch.clock()))
        devices = [
            (device, device in here, replace(seat) if seat else None, readings.get(device, Reading()))
            for device in sorted(session.samples.keys() | session.seats.keys())
            for seat in [session.seats.get(device)]
        ]
        waited_for, quorum = session.waited_for(dispatch.clock()), session.quorum
        phase, number, attempt = session.phase.value, session.round, session.attempt
        delivered, seated, opened = session.delivered, len(session.seats), session.opened
        filled = session.filled
        elapsed = dispatch.clock() - opened if phase == "open" and math.isfinite(opened) else None
        drained = orders.drained_numbers()
    open_round = list(readings.values()) if phase == "open" else []
    scores = [(record.round + 1, record.evaluated_accuracy) for record in board.records]
    evaluated = [(number, score) for number, score in scores if score is not None]
    return TEMPLATES.get_template("live_page.html.jinja").render(
        phase=dispatch.doing or ("paused" if orders.paused and phase == "waiting" else phase),
        drained=drained,
        trunks=trunks,
        round=min(number + 1, board.rounds or number + 1),
        attempt=max(0, attempt),
        board=board,
        present=len(here),
        waited_for=waited_for,
        waiting=_listed(waited_for.devices),
        within=None if waited_for.seconds is None else human_seconds(waited_for.seconds),
        elapsed=None if elapsed is None else human_seconds(elapsed),
        delivered=delivered,
        seated=seated,
        quorum=quorum,
        filled=filled,
        lines=_timelines(stats.lines(over=phase != "open"), phase == "open"),
        devices=devices,
        up=board.bytes_up + sum(reading.bytes_up for reading in open_round),
        down=board.bytes_down + sum(reading.bytes_down for reading in open_round),
        computed=dispatch.computed,
        repeated=dispatch.repeated,
        accuracy=_curve(evaluated, lambda share: f"{100 * share:.1f} %"),
        loss=_curve([(r.round + 1, r.loss) for r in board.records], lambda value: f"{value:.3g}"),
        moves=[
            str(move)
            for r in board.records
            if r.measured
            for move in (*r.measured.moves, *r.measured.server_moves)
        ][-LAST:][::-1],
        records=list(board.records)[-LAST:][::-1],
    )


def _listed(devices: Sequence[int]) -> str:
    """Return the numbers of devices, of many the first."""
    shown = ", ".join(map(str, devices[:NAMED]))
    return shown if len(devices) <= NAMED else f"{shown} and {len(devices) - NAMED} more"


def human_seconds(seconds: float) -> str:
    """Return seconds as people say them."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60} s" if whole < 7200 else f"{whole // 3600} h {whole % 3600 // 60} min"
    )


def _timelines(lines: Sequence[RoundTimeline], is_open: bool) -> list[dict[str, Any]]:
    """Return what each device did in the last rounds, the newest first, as bars across a picture of width 1000."""
    titles = ["this round" if is_open else "last round", "the round before"]
    found = []
    for title, line in zip(titles, reversed(lines), strict=False):
        span = max(line.ended or 0.0, 1e-9)
        rows = []
        for device, strip in sorted(line.strips.items()):
            bars = [
                {
                    "state": state,
                    "x": f"{1000 * begin / span:.1f}",
                    "width": f"{1000 * (min(end, span) - begin) / span:.1f}",
                }
                for state, begin, end in strip.runs()
                if begin < span
            ]
            words = ", ".join(
                f"{state} {seconds:.1f} s" for state, seconds in strip.seconds().items() if seconds
            )
            rows.append({"device": device, "bars": bars, "words": words or "nothing yet"})
        if rows:
            found.append(
                {"title": title, "rows": rows, "seconds": human_seconds(span), "most": len(rows) >= MOST}
            )
    return found


def _curve(points: Sequence[tuple[int, float]], shown: Callable[[float], str]) -> dict[str, Any]:
    """Return where a line through (round, value) pairs runs in its picture; empty where nothing is finite."""
    points = [(x, y) for x, y in points if math.isfinite(y)]
    if not points:
        return {}
    width, height, left, foot = 480, 150, 64, 20
    low, high = min(y for _, y in points), max(y for _, y in points)
    span, rounds = (high - low) or 1.0, max(points[-1][0], 2)
    places = [
        (
            f"{left + (x - 1) / (rounds - 1) * (width - left - 10):.1f}",
            f"{10 + (high - y) / span * (height - foot - 20):.1f}",
        )
        for x, y in points
    ]
    return {
        "width": width,
        "height": height,
        "left": left,
        "foot": foot,
        "points": " ".join(map(",".join, places)),
        "end": places[-1],
        "last": shown(points[-1][1]),
        "high": shown(high),
        "low": shown(low),
        "rounds": rounds,
    }
