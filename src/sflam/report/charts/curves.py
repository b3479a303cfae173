"""The curves of a run as one picture: accuracy and loss against round, accuracy against bytes sent.

Where a network was simulated, accuracy against the virtual clock and against energy as well.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from sflam.errors import RunError
from sflam.files import replace_file
from sflam.records.history import RoundRecord
from sflam.report.totals import is_measured

# Okabe and Ito's palette: told apart under every common colour blindness; dashes and markers say it twice.
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
_PREFIXES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_TIMES = ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"))
_ENERGIES = ((1e3, "kJ"), (1.0, "J"), (1e-3, "mJ"), (1e-6, "uJ"))


def draw(
    records: Sequence[RoundRecord], path: Path, *, title: str = "", devices: Sequence[float] = ()
) -> None:
    """Write the picture to ``path`` (PNG); rounds that were not evaluated leave no point.

    ``devices`` are accuracies in [0, 1], one per device, of the last round; they get a panel of their own.

    Raises RunError when there is nothing to draw or the file cannot be written.
    """
    if not records:
        raise RunError(f"no rounds to draw in {path}; run at least one round")
    # A Figure without pyplot draws with Agg: no window system, no global state.
    panels: list[Callable[[Axes], None]] = [
        lambda axes: _draw_accuracy(axes, records),
        lambda axes: _draw_loss(axes, records),
        lambda axes: _draw_traffic(axes, records),
    ]
    if all(item.charge for item in records):
        panels += [lambda axes: _draw_clock(axes, records), lambda axes: _draw_energy(axes, records)]
    if devices:
        panels.append(lambda axes: _draw_devices(axes, devices))
    rows = 1 if len(panels) <= 4 else 2
    across = -(-len(panels) // rows)
    figure = Figure(figsize=(4 * across, 3.8 * rows), layout=ConstrainedLayoutEngine(w_pad=0.12))
    for place, panel in enumerate(panels, start=1):
        panel(figure.add_subplot(rows, across, place))
    if title:
        figure.suptitle(title, fontsize=12)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    try:
        replace_file(path, picture.getvalue())
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}; choose another folder") from error


def _draw_accuracy(axes: Axes, records: Sequence[RoundRecord]) -> None:
    points = [(item.round + 1, 100 * item.accuracy) for item in records if item.accuracy is not None]
    last = f", {points[-1][1]:.1f} % at the end" if points else ""
    _style(axes, f"Accuracy by round{last}", "round", "test accuracy (%)")
    _curve(axes, points, BLUE, "o", "-", "test accuracy")
    _scale_rounds(axes, records)
    _scale_percent(axes)


def _draw_loss(axes: Axes, records: Sequence[RoundRecord]) -> None:
    tested = [(item.round + 1, item.test_loss) for item in records if item.test_loss is not None]
    _style(axes, "Loss by round", "round", "mean loss per sample (nats)")
    _curve(axes, [(item.round + 1, item.loss) for item in records], VERMILLION, "s", "-", "training")
    if tested:
        _curve(axes, tested, GREEN, "^", "--", "test")
    _scale_rounds(axes, records)
    shown = [value for item in records for value in (item.loss, item.test_loss) if is_measured(value)]
    axes.set_ylim(0, 1.08 * max(shown, default=0.0) or 1.0)
    diverged = next((item.round + 1 for item in records if not is_measured(item.loss)), None)
    if diverged is not None:
        axes.text(0.5, 0.5, f"not finite in round {diverged}", transform=axes.transAxes, ha="center")
    if axes.lines:
        axes.legend(frameon=False, loc="best")


def _draw_traffic(axes: Axes, records: Sequence[RoundRecord]) -> None:
    sent = list(itertools.accumulate(item.total_bytes for item in records))
    scale, prefix = next((pair for pair in _PREFIXES if sent[-1] >= pair[0]), _PREFIXES[-1])
    _against(axes, records, sent, scale, "Accuracy by traffic", f"sent so far, both ways ({prefix})")


def _draw_clock(axes: Axes, records: Sequence[RoundRecord]) -> None:
    clock = [item.charge.clock for item in records if item.charge]
    scale, unit = next((pair for pair in _TIMES if clock[-1] >= 2 * pair[0]), _TIMES[-1])
    _against(axes, records, clock, scale, "Accuracy by virtual time", f"virtual time so far ({unit})")


def _draw_energy(axes: Axes, records: Sequence[RoundRecord]) -> None:
    spent = list(itertools.accumulate(item.charge.energy for item in records if item.charge))
    scale, unit = next((pair for pair in _ENERGIES if spent[-1] >= pair[0]), _ENERGIES[-1])
    _against(axes, records, spent, scale, "Accuracy by energy", f"spent so far ({unit})")


def _against(
    axes: Axes,
    records: Sequence[RoundRecord],
    cost: Sequence[float],
    scale: float,
    title: str,
    across: str,
) -> None:
    """Draw accuracy against what the run has cost after each round."""
    points = [
        (value / scale, 100 * item.accuracy)
        for value, item in zip(cost, records, strict=True)
        if item.accuracy is not None
    ]
    _style(axes, title, across, "test accuracy (%)")
    _curve(axes, points, BLUE, "o", "-", "test accuracy")
    axes.set_xlim(0, 1.04 * cost[-1] / scale or 1)
    _scale_percent(axes)


def _draw_devices(axes: Axes, devices: Sequence[float]) -> None:
    """Show how evenly the model serves the devices, from the worst to the best."""
    ordered = sorted(100 * share for share in devices if is_measured(share))
    _style(axes, "Accuracy on each device's classes", "devices, worst first", "test accuracy (%)")
    _curve(axes, list(enumerate(ordered, 1)), GREEN, "o", "", "devices")
    axes.set_xlim(0.4, max(len(ordered), 1) + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    _scale_percent(axes)


def _curve(
    axes: Axes, points: Sequence[tuple[float, float]], colour: str, marker: str, line: str, label: str
) -> None:
    finite = [point for point in points if is_measured(point[1])]
    if not finite:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color="0.4")
        return
    axes.plot(
        [x for x, _ in finite],
        [y for _, y in finite],
        color=colour,
        linestyle=line,
        linewidth=1.8,
        # More markers than this would hide the line.
        marker=marker if len(finite) <= 40 or not line else None,
        markersize=4.5,
        label=label,
    )


def _scale_rounds(axes: Axes, records: Sequence[RoundRecord]) -> None:
    axes.set_xlim(0, (records[-1].round + 1) * 1.04)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def _scale_percent(axes: Axes) -> None:
    """Show the whole range, so that pictures of two runs compare at a glance."""
    axes.set_ylim(0, 104)
    axes.set_yticks(range(0, 101, 20))


def _style(axes: Axes, title: str, across: str, upward: str) -> None:
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel(across)
    axes.set_ylabel(upward)
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
