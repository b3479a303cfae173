"""A method looks the same in every picture and page, and all methods look apart: colour, marker and dash."""

from __future__ import annotations

import itertools
import json

import pytest
from tests.report.test_charts import EVERY, methods, round_of

from sflam.allocate.settings import METHODS as ALLOCATORS
from sflam.learn.settings.practice import METHODS
from sflam.report.charts.comparison import comparison_panels, draw_comparison
from sflam.report.charts.figure import draw
from sflam.report.charts.lines import Line, line_panel, notes, round_ticks, short
from sflam.report.charts.style import COLOURS, look, looks_of
from sflam.report.costs import zoom
from sflam.report.pages.inline import inline


def test_a_method_looks_the_same_wherever_it_is() -> None:
    alone = {name: looks_of([name])[name] for name in METHODS}
    for names in itertools.permutations(METHODS, 3):
        assert looks_of(names) == {name: alone[name] for name in names}
    assert looks_of(EVERY) == looks_of(EVERY) and {name: looks_of(EVERY)[name] for name in METHODS} == alone
    assert looks_of(["fedavg", *ALLOCATORS])["fedavg"] == alone["fedavg"]
    assert len({tuple(looks_of([*names, "random"])["random"]) for names in (["bcd"], ["equal"])}) == 1


def test_all_methods_differ_in_colour_and_in_marker_and_in_dash() -> None:
    looks = looks_of(EVERY)
    for combination, other in itertools.combinations(looks.values(), 2):
        assert (
            combination.colour != other.colour
            and combination.marker != other.marker
            and combination.dash != other.dash
        )
    assert len({look(number) for number in range(60)}) == 60
    many = [f"method-{number}" for number in range(40)]
    assert len(set(looks_of([*many, *EVERY]).values())) == 40 + len(EVERY)


def test_variants_of_a_method_differ() -> None:
    names = ["sflam", *(f"sflam+{allocator}" for allocator in ALLOCATORS), "sl"]
    assert len(set(looks_of(names).values())) == len(names)


def test_a_picture_and_a_page_show_a_method_alike() -> None:
    """The lines of the PNG's panels, and those of the page's, method by method."""
    found = methods(EVERY, 2, 4)
    looks = looks_of(EVERY)
    for axes in draw_comparison(found).axes:
        for line in axes.lines:
            if (name := line.get_label()) in looks:
                assert (line.get_color(), line.get_marker()) == looks[name][:2]
    shown = [inline(draw([panel])) for panel in comparison_panels(found)]
    variables = {light: f"var(--{name})" for name, (light, _) in COLOURS.items()}
    for name in EVERY:
        assert all(f"stroke: {variables[looks[name].colour]}" in chart for chart in shown[:2])


def test_colours_are_reported_apart_by_value() -> None:
    lights = [light for light, _ in COLOURS.values()]
    assert len(set(lights)) == len(lights) and all(light == light.lower() for light in lights)


def test_a_chart_on_a_page_has_no_colour_of_its_own_and_says_its_numbers() -> None:
    text = inline(round_of(3))
    assert "#" not in text.replace("url(#", "").replace('href="#', "") and "<style" not in text
    assert 'aria-label="' in text and "device 2: computing 220 ms" in text and "DejaVu" not in text
    evil = '"><script>alert(1)</script>$\\frac$ \x00'
    panel = line_panel(
        evil,
        [Line(name=evil, points=[(1, 2.5), (2, 3)]), Line(name="b", points=[])],
        across=evil,
        upward=evil,
    )
    drawn = inline(draw([panel]))
    assert "<script" not in drawn and "2.5 at 1" in drawn and "$\\frac$" in drawn and "\x00" not in drawn
    assert json.loads(notes(["a", '"']).removeprefix("notes ")) == ["a", '"']


def test_a_panel_of_nothing_says_so_and_what_is_not_finite_is_left_out() -> None:
    nothing = line_panel("t", [Line(name="a", points=[(1.0, float("nan"))])], across="x", upward="y")
    assert "not measured" in inline(draw([nothing]))
    points = [(0.0, 1.0), (1.0, float("inf")), (2.0, 3.0), (4.0, 5.0)]
    some = line_panel("t", [Line(name="a", points=points)], across="x", upward="y", log_x=True)
    assert inline(draw([some])).count("<title>a: ") == 2


@pytest.mark.parametrize(
    ("shares", "axis"),
    [
        ([], (0, 100)),
        ([88.0, 92.0], (87, 93)),
        ([31.0, 92.0], (20, 100)),
        ([0.0, 100.0], (0, 100)),
        ([99.9, 100.0], (99, 100)),
        ([0.0, 0.0], (0, 1)),
    ],
)
def test_percentages_are_shown_where_they_are(shares: list[float], axis: tuple[float, float]) -> None:
    assert zoom(shares) == axis


def test_logarithmic_ticks_are_round_and_few() -> None:
    assert round_ticks(3, 40) == [5, 10, 20] and round_ticks(1, 1e9)[0] == 1
    assert round_ticks(2, 2) == [2] and all(len(round_ticks(1, 10.0**power)) <= 6 for power in range(1, 12))
    assert [short(value) for value in (0, 0.25, 1500.0, 2e6, 1e-5)] == ["0", "0.25", "1500", "2e6", "1e-5"]
