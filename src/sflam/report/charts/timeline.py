"""A round as a timeline: what every device does and when.

Local steps take turns in truth; here each phase is drawn once, with the seconds of all steps together, in the order of
a step, and so is what a device waits for others, at every step or at the end. K devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sflam.records.charge import Charge
from sflam.report.charts.figure import draw
from sflam.report.charts.lines import notes
from sflam.report.charts.style import INK, ON_WHITE
from sflam.report.costs import TIMES, unit_of
from sflam.report.totals import brief

PHASES = {
    "compute": ("computing", "compute_s"),
    "up": ("sending activations", "up_s"),
    "server": ("server's turn", "server_s"),
    "down": ("receiving gradients", "down_s"),
    "adapters": ("adapters", "adapter_s"),
    "waiting": ("waiting", ""),
}
"""Colour -> words, and the charge's seconds."""
MOST_ROWS = 60


class Span(NamedTuple):
    """What a device does between two instants of a round, s; ``phase`` is one of ``PHASES``."""

    phase: str
    start: float
    end: float


def spans(charge: Charge, place: int) -> list[Span]:
    """Return what the participant at ``place`` does from the round's start to its end, without gaps.

    Adapters move once the slowest device of the turn is done; in a relay every device has a turn of its own.
    """
    relay = max(charge.begin) > 0
    found, now = [], 0.0

    def until(phase: str, end: float) -> None:
        nonlocal now
        if end > now:
            found.append(Span(phase, now, end))
            now = end

    until("waiting", charge.begin[place])
    for phase in ("compute", "up", "server", "down"):
        until(phase, now + getattr(charge, PHASES[phase][1])[place])
    adapters = charge.adapter_s[place]
    until("waiting", charge.finish[place] if relay else min(max(charge.finish), charge.seconds - adapters))
    until("adapters", min(now + adapters, charge.seconds))
    until("waiting", charge.seconds)
    return found


def has_phases(charge: Charge | None) -> bool:
    """Return whether a charge holds the phases of each device; those of older histories do not."""
    if charge is None or not charge.finish:
        return False
    names = ("begin", *(name for _, name in PHASES.values() if name))
    return all(len(getattr(charge, name)) == len(charge.finish) for name in names)


def draw_timeline(charge: Charge, devices: Sequence[int]) -> Figure:
    """Return the timeline of a round, a row per device; of many devices the slowest are shown.

    Args:
        charge: of the round, with its phases.
        devices: [K] the participants' indices.
    """
    places = sorted(sorted(range(len(devices)), key=lambda place: -charge.finish[place])[:MOST_ROWS])
    slowest = max(places, key=lambda place: charge.finish[place])
    ends = sorted(charge.finish)
    even = len(ends) < 2 or ends[-1] <= ends[-2] * (1 + 1e-6)  # an optimal plan has no straggler
    scale, unit = unit_of(charge.seconds, TIMES)

    def panel(axes: Axes) -> None:
        for row, place in enumerate(places):
            for phase, start, end in spans(charge, place):
                words = PHASES[phase][0]
                (bar,) = axes.barh(
                    row, (end - start) / scale, left=start / scale, height=0.68, color=ON_WHITE[phase]
                )
                bar.set_gid(notes([f"device {devices[place]}: {words} {brief(end - start)}"]))
        for phase, (words, _) in PHASES.items():
            axes.barh(0, 0, color=ON_WHITE[phase], label=words)
        axes.axvline(charge.finish[slowest] / scale, color=INK, linestyle=(0, (4, 3)), linewidth=1.2)
        axes.set_yticks(range(len(places)), [f"device {devices[place]}" for place in places])
        if not even:
            axes.get_yticklabels()[places.index(slowest)].set(weight="bold", color=INK)
        axes.set_ylim(len(places) - 0.5, -0.5)
        axes.set_xlim(0, charge.seconds / scale or 1)
        axes.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10]))
        axes.set_xlabel(f"time in the round ({unit})")
        axes.grid(False, axis="y")

    return draw([panel], size=(10.5, 0.28 * len(places) + 1.0))
