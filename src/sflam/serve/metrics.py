"""``/metrics``: what monitoring reads, as Prometheus text. Numbers only, no names and no tokens."""

from __future__ import annotations

from collections import Counter

from sflam.serve.dispatch import Dispatch
from sflam.serve.live_page import ProgressBoard

HELP = {
    "round": ("gauge", "Round that is open, or was last, from 0."),
    "rounds_done": ("gauge", "Rounds finished."),
    "attempt": ("gauge", "Openings of rounds so far, over all restarts."),
    "devices_known": ("gauge", "Devices that ever came."),
    "devices_present": ("gauge", "Devices heard of lately."),
    "devices_seated": ("gauge", "Devices with a part in the open round."),
    "devices_done": ("gauge", "Devices that have delivered in this round."),
    "train_loss": ("gauge", "Mean training loss of the last round."),
    "test_accuracy": ("gauge", "Last accuracy measured, in [0, 1]."),
    "round_seconds": ("gauge", "Seconds of the last round."),
    "exchanges_computed_total": ("counter", "Exchanges computed."),
    "exchanges_repeated_total": ("counter", "Exchanges asked for again, and not computed again."),
    "body_bytes_up_total": ("counter", "Bytes of bodies received."),
    "body_bytes_down_total": ("counter", "Bytes of bodies sent."),
    "body_bytes_in_flight": ("gauge", "Bytes of bodies in memory."),
}


def metrics_text(dispatch: Dispatch, counts: Counter[str], in_flight: int, board: ProgressBoard) -> str:
    """Return the metrics; what is not known yet is left out."""
    with dispatch.looked() as session:
        values: dict[str, float | None] = {
            "round": session.round,
            "rounds_done": len(board.records),
            "attempt": session.attempt,
            "devices_known": len(session.samples),
            "devices_present": len(session.present(dispatch.clock())),
            "devices_seated": sum(not seat.out for seat in session.seats.values()),
            "devices_done": sum(seat.result is not None for seat in session.seats.values()),
            "train_loss": board.loss,
            "test_accuracy": board.accuracy,
            "round_seconds": board.records[-1].seconds if board.records else None,
            "exchanges_computed_total": dispatch.computed,
            "exchanges_repeated_total": dispatch.repeated,
            "body_bytes_up_total": counts["bytes_up"],
            "body_bytes_down_total": counts["bytes_down"],
            "body_bytes_in_flight": in_flight,
        }
    lines = []
    for name, value in values.items():
        if value is not None:
            kind, text = HELP[name]
            lines += [
                f"# HELP sflam_{name} {text}",
                f"# TYPE sflam_{name} {kind}",
                f"sflam_{name} {value:.17g}",
            ]
    lines += ["# HELP sflam_refused_total Refused requests, by status.", "# TYPE sflam_refused_total counter"]
    for name, count in sorted(counts.items()):
        if name.startswith("refused_"):
            lines.append(f'sflam_refused_total{{status="{name.removeprefix("refused_")}"}} {count}')
    return "\n".join(lines) + "\n"
