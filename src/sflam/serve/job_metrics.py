"""``/metrics`` of one job: the run as a whole, its devices, its trunk servers."""

from __future__ import annotations

from collections.abc import Mapping

from sflam.serve.admission import Admission
from sflam.serve.device_metrics import device_metrics
from sflam.serve.ingress import Ingress
from sflam.serve.live_page import ProgressBoard
from sflam.serve.metrics import metrics_text
from sflam.serve.trunks.trunk_metrics import trunk_metrics


def job_metrics(
    ingress: Ingress,
    board: ProgressBoard,
    names: Mapping[int, str] | None = None,
    admission: Admission | None = None,
) -> str:
    """Return the text for Prometheus.

    Args:
        ingress: of the job.
        board: the rounds done.
        names: number -> name of the devices, for an operator; None shows numbers.
        admission: the connections of the process; None leaves them out.
    """
    orders, dispatch = ingress.orders, ingress.dispatch
    text = metrics_text(dispatch, ingress.counts, ingress.bounds.bytes, board, orders, admission)
    lines = device_metrics(dispatch, ingress.stats, board, orders, len(ingress.contracts), names)
    lines += trunk_metrics(ingress.trunk_servers(), named=names is not None)
    return text + "".join(f"{line}\n" for line in lines)
