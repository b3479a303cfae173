"""What ``/metrics`` says of every device: as many series as the job has places, however many come and go.

To whom shows an operator's token devices have names, to all others numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sflam.serve.dispatch import Dispatch
from sflam.serve.live_page import ProgressBoard
from sflam.serve.orders import Orders
from sflam.serve.round_stats import Reading, RoundStats
from sflam.serve.session import Phase

HELP = {
    "present": "Whether it was heard of lately.",
    "at_work": "Whether the open round waits for it.",
    "drained": "Whether an operator drained it.",
    "silent_seconds": "Seconds since it was heard of.",
    "rounds_total": "Rounds that counted what it trained.",
    "exchanges": "Exchanges it makes in the open round.",
    "exchanges_done": "Exchanges it has made of them.",
    "round_bytes_up": "Bytes of bodies it sent in the round.",
    "round_bytes_down": "Bytes of bodies it was sent in the round.",
    "upload_seconds": "Seconds in which its bodies came, in the round.",
    "away_seconds": "Seconds between answers and its next request, in the round.",
    "memory_bytes": "Most bytes that its process held, as it reports.",
    "temperature_celsius": "Hottest sensor, as it reports.",
    "throttled": "Whether heat or voltage slows it down, as it reports.",
    "battery_ratio": "What is left of its battery, as it reports.",
}


def device_metrics(
    dispatch: Dispatch,
    stats: RoundStats,
    board: ProgressBoard,
    orders: Orders,
    places: int,
    names: Mapping[int, str] | None = None,
) -> list[str]:
    """Return the lines of the devices that have come or have a name.

    Args:
        dispatch: the session.
        stats: what the network did in the round.
        board: the rounds done.
        orders: who is drained.
        places: devices of the job; numbers beyond are left out.
        names: number -> name, for an operator; None shows numbers.
    """
    readings = stats.readings()
    rounds = Counter(device for record in list(board.records) for device in record.participants)
    values: dict[str, list[tuple[int, float]]] = {name: [] for name in HELP}
    with dispatch.looked() as session:
        now = dispatch.clock()
        here = set(session.present(now))
        seats = session.seats if session.phase is Phase.OPEN else {}
        out = orders.drained_numbers()
        for device in sorted(d for d in session.samples.keys() | (names or {}).keys() if 0 <= d < places):
            seat = seats.get(device)
            found: dict[str, float | None] = {
                "present": device in here,
                "at_work": seat is not None and seat.active,
                "drained": device in out,
                "silent_seconds": session.silence(device, now),
                "rounds_total": rounds[device],
                "exchanges": seat.exchanges if seat else 0,
                "exchanges_done": seat.next if seat else 0,
            } | _read(readings.get(device, Reading()))
            for name, value in found.items():
                if value is not None:
                    values[name].append((device, float(value)))
    lines = []
    for name, rows in values.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        lines += [f"# HELP sflam_device_{name} {HELP[name]}", f"# TYPE sflam_device_{name} {kind}"]
        for device, value in rows:
            label = escaped((names or {}).get(device, str(device)))
            lines.append(f'sflam_device_{name}{{device="{label}"}} {value:.17g}')
    return lines


def _read(reading: Reading) -> dict[str, float | None]:
    report = reading.report
    return {
        "round_bytes_up": reading.bytes_up,
        "round_bytes_down": reading.bytes_down,
        "upload_seconds": reading.upload_s,
        "away_seconds": reading.away_s,
        "memory_bytes": (report.memory or None) if report else None,
        "temperature_celsius": report.temperature if report else None,
        "throttled": report.throttled if report else None,
        "battery_ratio": report.battery if report else None,
    }


def escaped(text: str) -> str:
    """Return a text as the value of a label."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
