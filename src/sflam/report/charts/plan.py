"""A plan as a chart: what every device gets, and the front between the time and the energy of a round."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from sflam.errors import RunError
from sflam.plan import Plan
from sflam.report.charts.bars import bar_panel
from sflam.report.charts.figure import draw
from sflam.report.charts.lines import Line, line_panel
from sflam.report.charts.style import ON_WHITE, look, looks_of

FAR = 2.0
"""A plan beyond this many times the front's largest time or energy is not drawn."""


def draw_allocation(plan: Plan, *, names: Sequence[str] = (), title: str = "") -> Figure:
    """Return bandwidth, power, bits and time per device; raises RunError where the plan has no devices."""
    devices = plan.devices
    if not len(devices):
        raise RunError(f"no devices to draw; the plan is {plan.status.value}")
    if not names or all(name.startswith("device-") for name in names):
        names = [str(place) for place in range(len(devices))]
    cuts = sorted(set(devices.cut.tolist()))
    cut = f"cut after block {cuts[0]}" if len(cuts) == 1 else f"cuts {cuts[0]} to {cuts[-1]}"
    band = (f"Bandwidth, {devices.bandwidth.sum() / 1e6:.4g} MHz in all", "MHz", devices.bandwidth / 1e6)
    if devices.shares_time:
        band = (f"Airtime of {devices.bandwidth.max() / 1e6:.4g} MHz", "%", 100 * devices.airtime)
    given = (
        band,
        ("Transmit power", "mW", devices.power * 1e3),
        (f"Bits per activation value, {cut}", "bit", devices.bits.astype(float)),
    )
    panels = [
        bar_panel(each, names, {"": values.tolist()}, upward=unit, colours=[ON_WHITE[f"s{number}"]])
        for number, (each, unit, values) in enumerate(given)
    ]
    # What is left of the round is waiting for the server and the slowest.
    rest = plan.latency - float((devices.compute_s + devices.transmit_s).max())
    server = f", {rest:.3g} s of it at the server" if rest > 0.005 * plan.latency else ""
    times = {"compute": devices.compute_s.tolist(), "transmit": devices.transmit_s.tolist()}
    colours = [ON_WHITE["compute"], ON_WHITE["up"]]
    whole = f"Time, a round takes {plan.latency:.4g} s{server}"
    panels.append(bar_panel(whole, names, times, upward="s", colours=colours, level=plan.latency))
    return draw(panels, title=title, size=(6.0, 3.3))


def draw_front(
    points: Sequence[tuple[float, float]],
    *,
    marks: Sequence[tuple[str, float, float]] = (),
    title: str = "",
) -> Figure:
    """Return the least energy (J) for every time of a round (s), and where plans lie.

    Args:
        points: (seconds, joules), the front.
        marks: (name, seconds, joules) of single plans.
        title: above.

    Raises:
        RunError: there are no points.
    """
    if not points:
        raise RunError("no points to draw; ask for at least one")
    seconds, joules = zip(*points, strict=True)
    looks = looks_of([name for name, _, _ in marks])
    best = look(0)._replace(colour=ON_WHITE["quiet"], marker=".")
    lines = [Line(name="the best possible", points=sorted(points), look=best)]
    for name, time, energy in marks:
        # One bad method would squeeze the front into a corner: far ones are named in the legend only.
        near = time <= FAR * max(seconds) and energy <= FAR * max(joules)
        label = name if near else f"{name} (far off: {time:.3g} s, {energy:.3g} J)"
        lines.append(
            Line(name=label, points=[(time, energy)] if near else [], look=looks[name], joined=False)
        )
    log = min(joules) > 0 and max(joules) > 8 * min(joules)
    panel = line_panel(
        title or "Energy against time of a round",
        lines,
        across="time of a round (s)",
        upward=f"energy of a round, as weighted (J{', log scale' * log})",
        log_y=log,
        from_zero=False,
    )
    return draw([panel], size=(7.0, 4.4))
