"""A round as a timeline: what every device does and when, as inline SVG.

Local steps take turns in truth; here each phase is drawn once, with the seconds of all steps together, in the order of
a step. K devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sflam.plan import ALL_LOCAL
from sflam.records.charge import Charge
from sflam.report.pages.line_chart import svg, ticks
from sflam.report.pages.markup import Html, element, joined
from sflam.report.totals import brief
from sflam.units import human_si

PHASES = (
    ("compute", "computing", "compute_s"),
    ("up", "sending activations", "up_s"),
    ("server", "server's turn", "server_s"),
    ("down", "receiving gradients", "down_s"),
    ("adapters", "adapters", "adapter_s"),
    ("waiting", "waiting", ""),
)
"""CSS class, words, and the charge's seconds."""
WIDTH, LEFT, RIGHT, TOP, ROW, BOTTOM = 860.0, 96.0, 20.0, 8.0, 24.0, 46.0
MOST_ROWS = 60
UNITS = ((7200.0, "h"), (120.0, "min"), (1.0, "s"), (1e-3, "ms"))


@dataclass(frozen=True)
class Span:
    """What a device does between two instants of a round, s; ``phase`` is a class of ``PHASES``."""

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
    for phase, _, name in PHASES[:4]:
        until(phase, now + getattr(charge, name)[place])
    until("waiting", charge.finish[place] if relay else max(charge.finish))
    until("adapters", now + charge.adapter_s[place])
    until("waiting", charge.seconds)
    return found


def has_phases(charge: Charge | None) -> bool:
    """Return whether a charge says what each device did; those of older histories do not."""
    if charge is None or not charge.finish:
        return False
    names = ("begin", *(name for _, _, name in PHASES if name))
    return all(len(getattr(charge, name)) == len(charge.finish) for name in names)


def timeline(charge: Charge, devices: Sequence[int]) -> Html:
    """Return the timeline of a round, a row per device; of many devices the slowest are shown.

    Args:
        charge: of the round, with its phases.
        devices: [K] the participants' indices.
    """
    slowest = max(range(len(devices)), key=lambda place: charge.finish[place])
    ends = sorted(charge.finish)
    even = len(ends) < 2 or ends[-1] <= ends[-2] * (1 + 1e-6)  # an optimal plan has no straggler
    places = list(range(len(devices)))
    if len(places) > MOST_ROWS:
        places = sorted(sorted(places, key=lambda place: -charge.finish[place])[:MOST_ROWS])
    height = TOP + ROW * len(places) + BOTTOM
    scale = (WIDTH - LEFT - RIGHT) / (charge.seconds or 1.0)
    least, name = next((pair for pair in UNITS if charge.seconds >= pair[0]), UNITS[-1])
    unit = {"h": 3600.0, "min": 60.0}.get(name, least)
    floor = TOP + ROW * len(places)
    pieces = []
    for tick in ticks(0.0, charge.seconds / unit, most=10):
        x = LEFT + tick * unit * scale
        pieces.append(element("line", x1=x, x2=x, y1=TOP, y2=floor + 4, class_="grid"))
        pieces.append(element("text", f"{tick:g}", x=x, y=floor + 18, class_="tick mid"))
    pieces.append(
        element("text", f"time in the round ({name})", x=(LEFT + WIDTH - RIGHT) / 2, y=height - 8, class_="label mid")
    )  # fmt: skip
    for row, place in enumerate(places):
        y = TOP + ROW * row
        late = place == slowest and not even
        who = f"device {devices[place]}"
        pieces.append(
            element("text", who, x=LEFT - 8, y=y + 16, class_="tick end strong" if late else "tick end")
        )
        for one in spans(charge, place):
            words = next(said for phase, said, _ in PHASES if phase == one.phase)
            note = element("title", f"{who}: {words} {brief(one.end - one.start)}")
            wide = max((one.end - one.start) * scale, 0.4)
            bar = element("rect", x=LEFT + one.start * scale, y=y + 4, width=wide, height=ROW - 8)
            pieces.append(element("g", note, bar, class_=f"phase {one.phase}"))
    x = LEFT + charge.finish[slowest] * scale
    pieces.append(element("line", x1=x, x2=x, y1=TOP, y2=floor, class_="straggler"))
    said = f"timeline of a round of {brief(charge.seconds)}, slowest device {devices[slowest]}"
    return element("div", svg(WIDTH, height, said, *pieces, class_="chart wide"), class_="scroll")


def phase_legend() -> Html:
    """Return what the colours of a timeline mean."""
    items = [element("li", element("span", class_=f"swatch {phase}"), said) for phase, said, _ in PHASES]
    return element("ul", *items, class_="legend")


def phase_table(charge: Charge, devices: Sequence[int]) -> Html:
    """Return the seconds of every phase and device as a table."""
    head = [
        "device",
        *["server", "blocks"] * charge.placed,
        *(said for _, said, name in PHASES if name),
        "done after",
        "bits up",
        "energy",
    ]
    rows = []
    for place, device in enumerate(devices):
        times = [getattr(charge, name)[place] for _, _, name in PHASES if name]
        where = [server_name(charge.servers[place] if charge.servers else 0), str(charge.cuts[place])]
        cells = [str(device), *where * charge.placed, *map(brief, times), brief(charge.finish[place])]
        cells += [str(charge.bits_up[place] or "-"), joule(charge.device_j[place])]
        rows.append(joined(*(element("td", cell) for cell in cells)))
    return numbers_table(head, rows)


def server_name(server: int) -> str:
    """Return what to call a server, or the want of one."""
    return "none" if server == ALL_LOCAL else str(server)


def numbers_table(head: Sequence[str], rows: Sequence[Html]) -> Html:
    """Return a table of numbers, in a box that scrolls sideways where it is too wide."""
    top = element("thead", element("tr", *(element("th", word, scope="col") for word in head)))
    body = element("tbody", *(element("tr", row) for row in rows))
    return element("div", element("table", top, body, class_="numbers"), class_="scroll", tabindex=0)


def joule(value: float) -> str:
    """Return an energy for people."""
    return human_si(value, "J")
