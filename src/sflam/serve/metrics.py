"""``/metrics``: what monitoring reads, as Prometheus text, of the run as a whole: numbers alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sflam.serve.admission import Admission
from sflam.serve.dispatch import Dispatch
from sflam.serve.live_page import ProgressBoard
from sflam.serve.orders import Orders


def metrics_text(
    dispatch: Dispatch,
    counts: Counter[str],
    in_flight: int,
    board: ProgressBoard,
    orders: Orders,
    admission: Admission | None = None,
) -> str:
    """Return the metrics; what is not known yet is left out."""
    seconds = board.records[-1].seconds if board.records else None
    last = board.records[-1].measured if board.records else None
    expected = last.predicted.seconds if last and last.predicted else None
    with dispatch.looked() as session:
        seats, here = session.seats.values(), session.present(dispatch.clock())
        waited_for = session.waited_for(dispatch.clock())
        values: list[tuple[str, float | None, str]] = [
            ("round", session.round, "Round that is open, or was last, from 0."),
            ("rounds_done", len(board.records), "Rounds finished."),
            ("attempt", session.attempt, "Openings of rounds so far, over all restarts."),
            ("devices_known", len(session.samples), "Devices that ever came."),
            ("devices_present", len(here), "Devices heard of lately."),
            ("devices_seated", sum(not seat.out for seat in seats), "Devices with a part in the open round."),
            ("devices_done", session.delivered, "Devices that have delivered in this round."),
            ("devices_awaited", len(waited_for.devices), "Devices that are waited for."),
            ("awaited_seconds", waited_for.seconds, "Seconds they are waited for at most."),
            ("devices_drained", len(orders.drained_numbers()), "Devices that an operator drained."),
            ("paused", orders.paused, "Whether an operator paused the run."),
            ("quorum", session.quorum, "Fewest devices that a round needs."),
            ("ready", waited_for.enough, "Whether the run can go on with the devices that are present."),
            ("train_loss", board.loss, "Mean training loss of the last round."),
            (f"{board.part}_accuracy", board.accuracy, "Last accuracy measured, in [0, 1]."),
            ("round_seconds", seconds, "Seconds of the last round."),
            ("round_expected_seconds", expected, "Seconds that were expected of the last round."),
            ("exchanges_computed_total", dispatch.computed, "Exchanges computed."),
            ("exchanges_repeated_total", dispatch.repeated, "Exchanges requested again, answered as before."),
            ("body_bytes_up_total", counts["bytes_up"], "Bytes of bodies received."),
            ("body_bytes_down_total", counts["bytes_down"], "Bytes of bodies sent."),
            ("body_bytes_in_flight", in_flight, "Bytes of bodies in memory."),
        ]
    lines = _lines(values)
    if admission is not None:
        lines += connection_lines(admission)
    lines += _head("refused_total", "Refused requests, by status.")
    for name, count in sorted(counts.items()):
        if name.startswith("refused_"):
            lines.append(f'sflam_refused_total{{status="{name.removeprefix("refused_")}"}} {count}')
    return "\n".join(lines) + "\n"


def connection_lines(admission: Admission) -> list[str]:
    """Return the lines of a process's connections, whosever they are."""
    strangers = len(admission.silent) + len(admission.speaking)
    return _lines(
        [
            ("connections_devices", len(admission.devices), "Connections with a valid token."),
            ("connections_strangers", strangers, "Connections without one so far."),
            ("connections_evicted_total", admission.evicted, "Connections that left for newer ones."),
        ]
    )


def _lines(values: Iterable[tuple[str, float | None, str]]) -> list[str]:
    return [
        line
        for name, value, text in values
        if value is not None
        for line in (*_head(name, text), f"sflam_{name} {value:.17g}")
    ]


def _head(name: str, text: str) -> list[str]:
    kind = "counter" if name.endswith("_total") else "gauge"
    return [f"# HELP sflam_{name} {text}", f"# TYPE sflam_{name} {kind}"]
