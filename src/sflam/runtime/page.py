"""What people and their monitoring see of a running server: numbers only, no names and no tokens."""

from __future__ import annotations

from collections import Counter

from sflam.runtime.desk import Desk

HELP = {
    "round": ("gauge", "Round that is open, or was last."),
    "attempt": ("gauge", "Openings of rounds so far, over all restarts."),
    "devices_present": ("gauge", "Devices heard of lately."),
    "devices_done": ("gauge", "Devices that have delivered in this round."),
    "exchanges_computed_total": ("counter", "Exchanges computed."),
    "exchanges_repeated_total": ("counter", "Exchanges asked for again, and not computed again."),
    "body_bytes_up_total": ("counter", "Bytes of bodies received."),
    "body_bytes_down_total": ("counter", "Bytes of bodies sent."),
    "body_bytes_in_flight": ("gauge", "Bytes of bodies in memory."),
}


def metrics_text(desk: Desk, counts: Counter[str], in_flight: int) -> str:
    """Return the metrics as Prometheus text."""
    with desk.locked() as session:
        values: dict[str, float] = {
            "round": session.round,
            "attempt": session.attempt,
            "devices_present": len(session.present(desk.clock())),
            "devices_done": sum(seat.result is not None for seat in session.seats.values()),
            "exchanges_computed_total": desk.computed,
            "exchanges_repeated_total": desk.repeated,
            "body_bytes_up_total": counts["bytes_up"],
            "body_bytes_down_total": counts["bytes_down"],
            "body_bytes_in_flight": in_flight,
        }
    lines = []
    for name, value in values.items():
        kind, text = HELP[name]
        lines += [f"# HELP sflam_{name} {text}", f"# TYPE sflam_{name} {kind}", f"sflam_{name} {value:g}"]
    lines += ["# HELP sflam_refused_total Refused requests, by status.", "# TYPE sflam_refused_total counter"]
    for name, count in sorted(counts.items()):
        if name.startswith("refused_"):
            lines.append(f'sflam_refused_total{{status="{name.removeprefix("refused_")}"}} {count}')
    return "\n".join(lines) + "\n"


def page(desk: Desk, counts: Counter[str]) -> str:
    """Return a small page that reloads itself every two seconds."""
    with desk.locked() as session:
        now = desk.clock()
        here = set(session.present(now))
        rows = "".join(
            f"<tr><td>{device}<td>{'yes' if device in here else 'no'}<td>{seat.next} of {seat.exchanges}"
            f"<td>{'delivered' if seat.result is not None else 'left out' if seat.out else 'at work'}"
            for device, seat in session.seats.items()
        )
        head = f"round {session.round + 1}, attempt {session.attempt}: {session.phase.value}, {len(here)} present"
    total = f"{counts['bytes_up'] / 1e6:.2f} MB up, {counts['bytes_down'] / 1e6:.2f} MB down"
    return (
        '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="2"><title>sflam</title>'
        "<style>body{font:16px system-ui;margin:2em}td,th{padding:.2em 1em;text-align:right}</style>"
        f"<h1>sflam</h1><p>{head}<p>{desk.computed} exchanges computed, {desk.repeated} repeated; {total}"
        f"<table><tr><th>device<th>present<th>exchange<th>state{rows}</table>"
    )
