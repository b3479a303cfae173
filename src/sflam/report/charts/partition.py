"""What each device holds: its training samples of every class, as bars or, of many classes, as discs."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sflam.records.partition import PartitionRecord
from sflam.report.charts.bars import MOST_BARS, MOST_NAMES, bar_panel
from sflam.report.charts.figure import PANEL, Panel, draw, wrapped
from sflam.report.charts.lines import notes
from sflam.report.charts.style import ON_WHITE

MOST_CLASSES = 12
"""As many as there are colours."""


def draw_partition(record: PartitionRecord, *, title: str = "") -> Figure:
    """Return the samples of every class on each device as one figure."""
    return draw([partition_panel(record)], title=title, size=(1.6 * PANEL[0], 1.2 * PANEL[1]))


def partition_panel(record: PartitionRecord) -> Panel:
    """Return the samples of every class on each device: stacked bars, or discs for many classes."""
    title = _title(record)
    names = [_short(name) for name in record.names] or ["samples"]
    if len(names) <= MOST_CLASSES:
        # Two names may be shortened alike: each keeps a stack of its own.
        labels = names if len(set(names)) == len(names) else [f"{n}: {name}" for n, name in enumerate(names)]
        stacks = {
            label: [float(device.counts[group]) for device in record.devices]
            for group, label in enumerate(labels)
        }
        tints = [ON_WHITE[f"s{number}"] for number in range(MOST_CLASSES)]
        devices = list(map(str, range(len(record.devices))))
        tints = tints if len(names) > 1 else tints[:1]
        return bar_panel(title, devices, stacks, upward="training samples", colours=tints)
    return _discs(record, title, names)


def _discs(record: PartitionRecord, title: str, names: list[str]) -> Panel:
    """Return a panel with a disc per device and class, of an area that is proportional to the samples."""
    held = [
        (device, group, count)
        for device, own in enumerate(record.devices)
        for group, count in enumerate(own.counts)
        if count
    ]
    most = max(count for _, _, count in held)

    def panel(axes: Axes) -> None:
        axes.set_title(wrapped(f"{title}; areas are samples, the largest is {most}"))
        axes.set_xlabel("device")
        axes.set_ylabel("class" if len(names) > 1 else "")
        axes.set_xlim(-0.7, len(record.devices) - 0.3)
        axes.set_ylim(-0.7, len(names) - 0.3)
        box = axes.get_window_extent()
        # points per cell, of a figure that is laid out later: its axes are about four fifths of it
        points = 0.8 * 72 / axes.figure.dpi * min(box.width / len(record.devices), box.height / len(names))
        largest = max(60.0, min(points, 26.0) ** 2)
        devices, groups, counts = zip(*held, strict=True)
        areas = [max(0.6, largest * count / most) for count in counts]
        drawn = axes.scatter(devices, groups, s=areas, color=ON_WHITE["s0"], linewidth=0)
        if len(held) <= 20 * MOST_BARS:
            drawn.set_gid(notes([f"device {d}: {n} of {names[g]}" for d, g, n in held]))
        if len(names) <= MOST_NAMES:
            axes.set_yticks(range(len(names)), names, fontsize=8)
        else:
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return panel


def _title(record: PartitionRecord) -> str:
    by = "" if not record.names else " of each class"
    wrong = [(number, device.flips) for number, device in enumerate(record.devices) if device.flips]
    flips = ", ".join(f"{count} of device {number}" for number, count in wrong[:3])
    more = f" and {len(wrong) - 3} more devices" if len(wrong) > 3 else ""
    return f"Samples{by} on each device" + (f" (labels flipped: {flips}{more})" if wrong else "")


def _short(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:11]}…{name[-8:]}"
