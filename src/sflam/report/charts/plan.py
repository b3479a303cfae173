"""Pictures of a plan: what every device gets, and the front between the time and the energy of a round."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from sflam.errors import RunError
from sflam.files import replace_file
from sflam.plan import Plan

# Okabe and Ito's palette, as in the curves of a run.
BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
COLOURS = (VERMILLION, GREEN, ORANGE, "#CC79A7", "#56B4E9", "0.3")
MARKERS = "svD^<>PX*hp"
FAR = 2.0
"""A plan beyond this many times the front's largest time or energy is not drawn."""
MOST_NAMES = 24
"""More devices than this are numbered instead of named."""
MOST_BARS = 80
"""More devices than this are drawn as filled steps, sorted by what they get."""


def draw_allocation(plan: Plan, path: Path, *, names: Sequence[str] = (), title: str = "") -> None:
    """Write a PNG of bandwidth, power, bits and time per device.

    Raises:
        RunError: the plan has no devices, or the file cannot be written.
    """
    if not len(plan.devices):
        raise RunError(f"no devices to draw in {path}; the plan is {plan.status.value}")
    devices = plan.devices
    figure = Figure(figsize=(12, 6.4), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
    (left, right), (under, time) = figure.subplots(2, 2, sharex="col" if len(devices) <= MOST_BARS else False)
    _each(
        left,
        devices.bandwidth / 1e6,
        BLUE,
        f"Bandwidth, {devices.bandwidth.sum() / 1e6:.4g} MHz in all",
        "MHz",
    )
    _each(right, devices.power * 1e3, VERMILLION, "Transmit power", "mW")
    cuts = sorted(set(devices.cut.tolist()))
    said = f"cut after block {cuts[0]}" if len(cuts) == 1 else f"cuts {cuts[0]} to {cuts[-1]}"
    _each(under, devices.bits.astype(float), GREEN, f"Bits per activation value, {said}", "bit")
    under.set_ylim(0, 17)
    under.set_yticks(range(0, 17, 4))
    _times(time, plan)
    for axes in (left, right, under, time):
        _name_devices(axes, names, len(devices), lowest=axes in (under, time))
    if title:
        figure.suptitle(title, fontsize=12)
    save(figure, path)


def draw_front(
    points: Sequence[tuple[float, float]],
    path: Path,
    *,
    marks: Sequence[tuple[str, float, float]] = (),
    title: str = "",
) -> None:
    """Write a PNG of the front: the least energy (J) for every time of a round (s), and where plans lie.

    Args:
        points: (seconds, joules), the front.
        path: of the PNG.
        marks: (name, seconds, joules) of single plans.
        title: above the picture.

    Raises:
        RunError: no points, or the file cannot be written.
    """
    if not points:
        raise RunError(f"no points to draw in {path}; ask for at least one")
    figure = Figure(figsize=(7.6, 5.0), layout=ConstrainedLayoutEngine())
    axes = figure.subplots()
    front = sorted(points)
    seconds, joules = zip(*front, strict=True)
    axes.plot(
        seconds, joules, color=BLUE, marker="o", markersize=3.5, linewidth=1.8, label="the best possible"
    )
    # One bad method would squeeze the front into a corner: far ones are named in the legend only.
    for index, (name, time, energy) in enumerate(marks):
        near = time <= FAR * max(seconds) and energy <= FAR * max(joules)
        axes.plot(
            [time] if near else [],
            [energy] if near else [],
            marker=MARKERS[index % len(MARKERS)],
            markersize=8,
            linestyle="none",
            color=COLOURS[index % len(COLOURS)],
            label=name + ("" if near else f" (far off: {time:.3g} s, {energy:.3g} J)"),
        )
    if min(joules) > 0 and max(joules) > 8 * min(joules):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    _style(
        axes,
        title or "Energy against time of a round",
        "time of a round (s)",
        "energy of a round, as weighted (J)",
    )
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.legend(frameon=False, loc="best")
    save(figure, path)


def _each(axes: Axes, values: np.ndarray, colour: str, title: str, unit: str) -> None:
    _style(axes, title, "device", unit)
    places = np.arange(len(values))
    if len(values) <= MOST_BARS:
        axes.bar(places, values, color=colour, width=0.75)
    else:
        axes.set_xlabel("devices, from the largest share")
        axes.fill_between(places, np.sort(values)[::-1], step="mid", color=colour, linewidth=0)
    axes.set_ylim(0, 1.08 * float(values.max()) or 1.0)


def _times(axes: Axes, plan: Plan) -> None:
    """Stack computing and transmitting; the rest of the round is waiting for the server and the slowest."""
    compute, transmit = plan.devices.compute_s, plan.devices.transmit_s
    rest = plan.latency - float((compute + transmit).max())
    said = f", {rest:.3g} s of it at the server" if rest > 0.005 * plan.latency else ""
    _style(axes, f"Time, a round takes {plan.latency:.4g} s{said}", "device", "s")
    order = np.arange(len(compute))
    if len(compute) <= MOST_BARS:
        axes.bar(order, compute, color=BLUE, width=0.75, label="compute")
        axes.bar(order, transmit, bottom=compute, color=ORANGE, width=0.75, label="transmit")
    else:
        axes.set_xlabel("devices, from the longest computing")
        order = np.argsort(-compute, kind="stable")
        places = np.arange(len(order))
        above = compute[order] + transmit[order]
        axes.fill_between(places, compute[order], step="mid", color=BLUE, linewidth=0, label="compute")
        axes.fill_between(
            places, compute[order], above, step="mid", color=ORANGE, linewidth=0, label="transmit"
        )
    axes.axhline(plan.latency, color="0.3", linestyle="--", linewidth=1.2)
    axes.set_ylim(0, 1.25 * max(plan.latency, float((compute + transmit).max())))
    axes.legend(frameon=False, loc="upper right", ncols=2)


def _name_devices(axes: Axes, names: Sequence[str], count: int, *, lowest: bool) -> None:
    axes.set_xlim(-0.6, count - 0.4)
    if count > MOST_BARS:
        return
    if not lowest:  # the panels below share the axis
        axes.set_xlabel("")
        return
    if names and count <= MOST_NAMES and any(not name.startswith("device-") for name in names):
        axes.set_xticks(range(count), names, rotation=60, ha="right", fontsize=8)
        axes.set_xlabel("")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _style(axes: Axes, title: str, across: str, upward: str) -> None:
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel(across)
    axes.set_ylabel(upward)
    axes.grid(True, axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG; raises RunError."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    try:
        replace_file(path, picture.getvalue())
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}; choose another folder") from error
