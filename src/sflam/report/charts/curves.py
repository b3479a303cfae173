"""The curves of a run: accuracy and loss against round, accuracy against bytes, virtual time and energy."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from sflam.errors import RunError
from sflam.records.history import RoundRecord, part_of
from sflam.report.charts.figure import Panel, draw
from sflam.report.charts.lines import Line, line_panel
from sflam.report.charts.style import Look, looks_of
from sflam.report.costs import COSTS, is_known, scaled, share_of
from sflam.report.totals import is_measured


def draw_curves(
    records: Sequence[RoundRecord],
    *,
    title: str = "",
    method: str = "sflam",
    devices: Sequence[float] = (),
    width: str = "",
) -> Figure:
    """Return the curves of a run as one figure; rounds that were not evaluated leave no point.

    Args:
        records: its rounds.
        title: above.
        method: whose colour they have.
        devices: accuracies in [0, 1], one per device, after the last round; they get a panel of their own.
        width: as of ``draw``.

    Raises:
        RunError: there is no round.
    """
    if not records:
        raise RunError("no rounds to draw; run at least one round")
    panels = curve_panels(records, method)
    if devices:
        panels.append(_devices(devices, looks_of([method])[method]))
    return draw(panels, title=title, width=width)


def curve_panels(records: Sequence[RoundRecord], method: str) -> list[Panel]:
    """Return accuracy by round, losses by round, and accuracy against every cost that is known."""
    look, part = looks_of([method])[method], part_of(records)
    panels: list[Panel] = []
    for title, across, cost in COSTS:
        costs = cost(records)
        if costs is None or (title != COSTS[0][0] and not is_known([records], cost)):
            continue
        costs, across = scaled(costs, across.replace(", log scale", ""))
        points = [(at, 100 * share_of(item)) for at, item in zip(costs, records, strict=True)]
        last = next((y for _, y in reversed(points) if is_measured(y)), None)
        reached = "" if panels or last is None else f", {last:.1f} % at the end"
        line = Line(name=f"{part} accuracy", points=points, look=look)
        panels.append(
            line_panel(title + reached, [line], across=across, upward=f"{part} accuracy (%)", percent=True)
        )
    panels.insert(1, _losses(records, look, part))
    return panels


def _losses(records: Sequence[RoundRecord], look: Look, part: str) -> Panel:
    training = [(item.round + 1, item.loss) for item in records]
    scores = [(item.round + 1, item.evaluated_loss) for item in records]
    held = [(step, loss) for step, loss in scores if loss is not None]
    lines = [Line(name="training loss", points=training, look=look._replace(marker="s", dash=(5, 2)))]
    if any(is_measured(loss) for _, loss in held):
        lines.append(Line(name=f"{part} loss", points=held, look=look._replace(marker="^", dash=(1, 1.5))))
    lost = next((step for step, loss in training if not is_measured(loss)), None)
    title = "Loss by round" if lost is None else f"Loss by round, not finite in round {lost}"
    return line_panel(title, lines, across="round", upward="mean loss per sample (nats)")


def _devices(devices: Sequence[float], look: Look) -> Panel:
    """Show how evenly the model serves the devices, from the worst to the best."""
    ordered = sorted(100 * share for share in devices if is_measured(share))
    line = Line(
        name="a device", points=list(enumerate(ordered, 1)), look=look._replace(marker="D"), joined=False
    )
    title = "Accuracy on each device's mix of classes"
    return line_panel(title, [line], across="devices, worst first", upward="test accuracy (%)", percent=True)
