"""The live page: devices, round, accuracy, losses, bytes. Numbers only: it needs no token, so it tells no names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from sflam.records.history import RoundRecord
from sflam.serve.dispatch import Dispatch
from sflam.serve.round_stats import Reading, RoundStats
from sflam.serve.session import Seat
from sflam.units import human_bytes

PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:",
    "X-Content-Type-Options": "nosniff",
}
LAST = 12
"""Rounds in the table."""

STYLE = """
:root{--ink:#1b2430;--soft:#5d6b7c;--line:#dfe5ec;--paper:#f5f7fa;--card:#fff;--blue:#2563eb;--green:#15803d;
--amber:#b45309}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf2;--soft:#93a1b3;--line:#2b3543;--paper:#10151c;--card:#18202a;
--blue:#60a5fa;--green:#4ade80;--amber:#fbbf24}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.45 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:20px 16px 40px}
h1{font-size:20px;margin:0;display:flex;gap:10px;align-items:center}
h2{font-size:15px;margin:0 0 10px}
.phase{font-size:13px;font-weight:500;padding:2px 10px;border-radius:99px;border:1px solid var(--line);
color:var(--soft)}
.phase.open{color:var(--green);border-color:var(--green)}
.tiles{display:grid;grid-template-columns:repeat(6,1fr);gap:10px;margin:16px 0 10px}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px;margin-bottom:10px}
.tiles .card,.two .card{margin:0}
.tile,small{color:var(--soft)}
.tile b{display:block;color:var(--ink);font-size:22px;font-weight:600;font-variant-numeric:tabular-nums}
.two{display:grid;grid-template-columns:1fr 1fr;gap:10px;margin-bottom:10px}
svg{width:100%;height:auto;display:block}
svg text{font:11px system-ui,sans-serif;fill:var(--soft)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:6px 10px;text-align:right;white-space:nowrap;border-top:1px solid var(--line)}
th{border:0;color:var(--soft);font-weight:500;font-size:13px}
th:first-child,td:first-child{text-align:left}
.bar{display:inline-block;width:90px;height:8px;border-radius:4px;background:var(--line);overflow:hidden;
vertical-align:middle;margin-right:8px}
.bar i{display:block;height:100%;background:var(--blue)}
.dot{display:inline-block;width:8px;height:8px;border-radius:50%;background:var(--line);margin-right:8px}
.dot.on{background:var(--green)}
.out{color:var(--amber)}.done{color:var(--green)}
@media(max-width:1000px){.tiles{grid-template-columns:repeat(3,1fr)}}
@media(max-width:640px){.two{grid-template-columns:1fr}.tiles{grid-template-columns:1fr 1fr}.bar{width:52px}
th,td{padding:6px 7px}main{padding:14px 10px 30px}.tile b{font-size:19px}.wide{display:none}svg text{font-size:15px}}
"""
SCRIPT = """
setInterval(async()=>{try{const r=await fetch(location.href,{cache:"no-store"});const d=new DOMParser().parseFromString(
await r.text(),"text/html");document.querySelector("main").replaceWith(d.querySelector("main"))}catch(e){
document.querySelector(".phase").textContent="no answer"}},2000)
"""


@dataclass
class ProgressBoard:
    """The rounds of a run.

    Attributes:
        rounds: how many there are to be.
        records: those done.
    """

    rounds: int = 0
    records: Sequence[RoundRecord] = field(default_factory=list)

    @property
    def accuracy(self) -> float | None:
        """The last one measured, in [0, 1]."""
        return next((one.accuracy for one in reversed(self.records) if one.accuracy is not None), None)

    @property
    def loss(self) -> float | None:
        """Training loss of the last round."""
        return self.records[-1].loss if self.records else None

    @property
    def bytes_up(self) -> int:
        """Bytes of bodies devices sent in the rounds done."""
        return sum(one.bytes_up + one.adapter_bytes_up for one in self.records)

    @property
    def bytes_down(self) -> int:
        """Bytes of bodies they received."""
        return sum(one.bytes_down + one.adapter_bytes_down for one in self.records)


def page(dispatch: Dispatch, stats: RoundStats, board: ProgressBoard) -> str:
    """Return the page, which renews itself every two seconds."""
    readings = stats.readings()
    with dispatch.looked() as session:
        here = set(session.present(dispatch.clock()))
        known = sorted(session.samples.keys() | session.seats.keys())
        devices = "".join(
            _device(device, device in here, session.seats.get(device), readings.get(device, Reading()))
            for device in known
        )
        phase, number, attempt = session.phase.value, session.round, session.attempt
    up = board.bytes_up + sum(one.bytes_up for one in readings.values()) * (phase == "open")
    down = board.bytes_down + sum(one.bytes_down for one in readings.values()) * (phase == "open")
    of = f" <small>of {board.rounds}</small>" if board.rounds else ""
    tiles = (
        ("round", f"{min(number + 1, board.rounds or number + 1)}{of}", f"attempt {max(0, attempt)}"),
        ("devices present", str(len(here)), f"{len(known)} known"),
        ("accuracy", "–" if board.accuracy is None else f"{100 * board.accuracy:.1f} %", "on test data"),
        ("training loss", "–" if board.loss is None else f"{board.loss:.4f}", "of the last round"),
        ("sent up", human_bytes(up), f"{human_bytes(down)} down"),
        ("exchanges", str(dispatch.computed), f"{dispatch.repeated} repeated"),
    )
    shown = "".join(
        f'<div class="card tile">{name}<b>{value}</b><small>{more}</small></div>'
        for name, value, more in tiles
    )
    accuracy = [(one.round + 1, one.accuracy) for one in board.records if one.accuracy is not None]
    loss = [(one.round + 1, one.loss) for one in board.records]
    rows = "".join(_round(one) for one in list(board.records)[-LAST:][::-1])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, '
        'initial-scale=1"><link rel="icon" href="data:,"><title>sflam server</title>'
        f'<style>{STYLE}</style><noscript><meta http-equiv="refresh" content="5"></noscript></head><body><main>'
        f'<h1>sflam <span class="phase {phase}">{phase}</span></h1><div class="tiles">{shown}</div><div class="two">'
        f'<div class="card"><h2>Accuracy</h2>{_curve(accuracy, "--green", percent=True)}</div>'
        f'<div class="card"><h2>Training loss</h2>{_curve(loss, "--blue")}</div></div>'
        '<div class="card"><h2>Devices</h2><div class="scroll"><table><tr><th>device<th>this round<th>state<th>up'
        f'<th class="wide">down<th class="wide">uploading<th class="wide">away{devices}</table></div></div>'
        '<div class="card"><h2>Rounds</h2><div class="scroll"><table><tr><th>round<th>loss<th>accuracy<th>devices<th>up'
        f'<th class="wide">down<th>time{rows}</table></div></div></main><script>{SCRIPT}</script></body></html>'
    )


def _device(device: int, here: bool, seat: Seat | None, reading: Reading) -> str:
    state, share, count = "waits", 0.0, ""
    if seat is not None:
        share, count = seat.next / max(1, seat.exchanges), f"{seat.next} / {seat.exchanges}"
        state = "at work" if here else "absent"
        if seat.result is not None:
            state = '<span class="done">delivered</span>'
        elif seat.out:
            state = '<span class="out">left out</span>'
    elif not here:
        state = "absent"
    return (
        f'<tr><td><span class="dot{" on" if here else ""}"></span>{device}'
        f'<td><span class="bar"><i style="width:{100 * share:.0f}%"></i></span>{count}<td>{state}'
        f'<td>{human_bytes(reading.bytes_up)}<td class="wide">{human_bytes(reading.bytes_down)}'
        f'<td class="wide">{reading.upload_s:.1f} s<td class="wide">{reading.away_s:.1f} s'
    )


def _round(one: RoundRecord) -> str:
    accuracy = "–" if one.accuracy is None else f"{100 * one.accuracy:.1f} %"
    return (
        f"<tr><td>{one.round + 1}<td>{one.loss:.4f}<td>{accuracy}<td>{len(one.participants)}"
        f"<td>{human_bytes(one.bytes_up + one.adapter_bytes_up)}"
        f'<td class="wide">{human_bytes(one.bytes_down + one.adapter_bytes_down)}<td>{one.seconds:.1f} s'
    )


def _curve(points: Sequence[tuple[int, float]], colour: str, *, percent: bool = False) -> str:
    """Return (round, value) pairs as a line in an SVG, its least and greatest value written beside it."""
    points = [(x, y) for x, y in points if math.isfinite(y)]
    if not points:
        return "<small>nothing measured yet</small>"
    width, height, left, foot = 480, 150, 64, 20
    low, high = min(y for _, y in points), max(y for _, y in points)
    span, last = (high - low) or 1.0, max(points[-1][0], 2)

    def at(x: float, y: float) -> str:
        return (
            f"{left + (x - 1) / (last - 1) * (width - left - 10):.1f},"
            f"{10 + (high - y) / span * (height - foot - 20):.1f}"
        )

    def said(y: float) -> str:
        return f"{100 * y:.1f} %" if percent else f"{y:.3g}"

    line = " ".join(at(x, y) for x, y in points)
    cx, cy = at(*points[-1]).split(",")
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="last value {said(points[-1][1])}">'
        f'<polyline points="{line}" fill="none" stroke="var({colour})" stroke-width="2" stroke-linejoin="round"/>'
        f'<circle cx="{cx}" cy="{cy}" r="3.5" fill="var({colour})"/>'
        f'<text x="0" y="14">{said(high)}</text><text x="0" y="{height - foot - 6}">{said(low)}</text>'
        f'<text x="{left}" y="{height - 3}">round 1</text>'
        f'<text x="{width - 4}" y="{height - 3}" text-anchor="end">{last}</text></svg>'
    )
