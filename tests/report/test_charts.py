"""Every chart is a figure whose words are whole and apart; error bars and zoomed axes say what they are."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from tests.report.charges import charge
from tests.report.test_plan_report import NONE, made

from sflam.errors import RunError
from sflam.learn.settings.practice import METHODS
from sflam.plan import ALL_LOCAL
from sflam.records.history import RoundRecord
from sflam.records.partition import DeviceSamples, PartitionRecord
from sflam.report.charts.bars import bar_panel
from sflam.report.charts.comparison import draw_comparison
from sflam.report.charts.curves import draw_curves
from sflam.report.charts.edge_map import draw_map
from sflam.report.charts.figure import draw, save
from sflam.report.charts.partition import draw_partition
from sflam.report.charts.plan import draw_allocation, draw_front
from sflam.report.charts.stability import draw_stability
from sflam.report.charts.sweeps import draw_sweeps
from sflam.report.charts.timeline import draw_timeline

PNG = b"\x89PNG\r\n\x1a\n"
EVERY = (*METHODS, "a-method-of-a-user-with-a-long-name")
LONG = "a-folder-with-a-rather-long-name-that-was-chosen-for-a-run-of-many-rounds-and-never-changed"


def records(count: int, every: int = 1, *, charged: bool = False, best: float = 0.95) -> list[RoundRecord]:
    return [
        RoundRecord(
            round=number,
            loss=2.3 * math.exp(-number / 5),
            test_loss=2.4 * math.exp(-number / 5) if number % every == 0 else None,
            accuracy=best * (1 - 0.3 * math.exp(-number / 5)) if number % every == 0 else None,
            bytes_up=2_000_000,
            bytes_down=2_000_000,
            charge=charge(number) if charged else None,
        )
        for number in range(count)
    ]


def methods(
    names: tuple[str, ...] = EVERY, seeds: int = 3, rounds: int = 12
) -> dict[str, list[list[RoundRecord]]]:
    return {
        name: [
            records(
                rounds,
                charged=name not in ("central", "local"),
                best=0.95 - 0.16 * place / len(names) - 0.01 * seed,
            )
            for seed in range(seeds)
        ]
        for place, name in enumerate(names)
    }


def row(
    accuracy: float, seconds: float | None, joules: float | None, spread: float | None = 0.01
) -> dict[str, Any]:
    around = {} if spread is None else {"mean": accuracy, "low": accuracy - spread, "high": accuracy + spread}
    means = {"accuracy": accuracy, "virtual_s": seconds, "energy_j": joules}
    return means | {"intervals": {"accuracy": around} if around else {}}


def swept() -> Figure:
    line = [(value, row(0.9 - 0.1 / value, 3 + value / 10, 2 + 3 / value)) for value in (2, 4, 8, 16)]
    labels = {
        "bits": "bits of a value at the cut, both ways",
        "alpha": "Dirichlet alpha: small is skewed",
        "weight": "w",
    }
    rest = {"fedlora": row(0.8, 20, 10), "central": row(0.8, None, None), "sl": row(0.7, 3.01, 3.4)}
    return draw_sweeps({axis: {"sflam": line} for axis in labels}, labels=labels, methods=rest, seeds=3)


def mapped(count: int = 60) -> Figure:
    random = np.random.default_rng(0)
    plan = made(count, server=random.integers(ALL_LOCAL, 5, count), cut=random.integers(0, 12, count))
    places = random.uniform(0, 500, (count, 2)), random.uniform(100, 400, (5, 2))
    return draw_map(plan, *places, layers=12, title=f"{count} users, 5 servers")


def stable() -> Figure:
    fractions = [
        {"fraction": p, "measured": p / 10, "error": 0.01, "soft": p, "calibrated": p / 5, "hard": None}
        for p in (0.2, 0.5, 1.0)
    ]
    return draw_stability({"fractions": fractions}, title="nano-vit on digits, n = 100")


def round_of(devices: int) -> Figure:
    each = tuple(0.2 + 0.01 * device for device in range(devices))
    phases = dict.fromkeys(("compute_s", "up_s", "server_s", "down_s", "adapter_s"), each)
    finish = tuple(4 * item for item in each)
    cost = replace(charge(0), begin=(0.0,) * devices, finish=finish, seconds=max(finish) + 0.5, **phases)  # type: ignore[arg-type]
    return draw_timeline(cost, range(devices))


def front() -> Figure:
    marks = [("optimal", 2.0, 3.0), ("a-solver-of-a-user", 3.0, 1.0), ("equal", 900.0, 1.0)]
    return draw_front([(1.0, 10.0), (2.0, 1.0), (9.0, 0.1)], marks=marks, title=LONG)


def held(devices: int, classes: int, flips: int = 0) -> PartitionRecord:
    counts = np.random.default_rng(0).integers(0, 40, (devices, max(1, classes)))
    each = [
        DeviceSamples(rows=tuple(range(own.sum())), counts=tuple(own.tolist()), flips=flips) for own in counts
    ]
    names = tuple(f"a class with a rather long name {number}" for number in range(classes))
    return PartitionRecord(partition="dirichlet", names=names, devices=tuple(each))


def test_bars_of_a_partition_are_its_counts() -> None:
    record = held(6, 3)
    heights = {
        tuple(bar.get_height() for bar in container)
        for container in draw_partition(record).axes[0].containers
    }
    assert heights == {tuple(device.counts[group] for device in record.devices) for group in range(3)}


def test_discs_of_a_partition_have_the_areas_of_its_counts() -> None:
    record = held(5, 30)
    [drawn] = draw_partition(record).axes[0].collections
    places = {
        (int(x), int(y)): area for (x, y), area in zip(drawn.get_offsets(), drawn.get_sizes(), strict=True)
    }
    counts = {(k, g): n for k, own in enumerate(record.devices) for g, n in enumerate(own.counts) if n}
    assert places.keys() == counts.keys()
    ratios = [places[place] / count for place, count in counts.items() if count > 5]
    assert max(ratios) == pytest.approx(min(ratios))


FIGURES: dict[str, Callable[[], Figure]] = {
    "curves": lambda: draw_curves(records(20), title=LONG),
    "long": lambda: draw_curves(records(100, every=7), title="long"),
    "single": lambda: draw_curves(records(1)),
    "unevaluated": lambda: draw_curves([RoundRecord(round=0, loss=2.0)]),
    "diverged": lambda: draw_curves(
        [RoundRecord(round=0, loss=math.nan, accuracy=math.nan, test_loss=math.inf)]
    ),
    "simulated": lambda: draw_curves(records(20, charged=True), devices=[0.5, 0.9, 1.0], method="sl"),
    "nine methods": lambda: draw_comparison(methods(), title=LONG),
    "one method": lambda: draw_comparison(methods(("central",), 1)),
    "sweeps": swept,
    "allocation": lambda: draw_allocation(
        made(20), names=[f"a-board-with-a-long-name-{i}" for i in range(20)]
    ),
    "one device": lambda: draw_allocation(made(1), title="ViT on boards"),
    "500 devices": lambda: draw_allocation(made(500), title="ViT on boards"),
    "front": front,
    "map": mapped,
    "crowded map": lambda: mapped(300),
    "stability": stable,
    "timeline": lambda: round_of(6),
    "long timeline": lambda: round_of(200),
    "partition": lambda: draw_partition(held(10, 10, flips=4), title=LONG),
    "partition of one": lambda: draw_partition(held(1, 0)),
    "partition of 200": lambda: draw_partition(held(200, 2)),
    "partition of many classes": lambda: draw_partition(held(12, 20), title="long names"),
    "partition of a hundred classes": lambda: draw_partition(held(50, 100)),
    "bars": lambda: draw(
        [bar_panel("t", list(EVERY), {"": [1.0] * len(EVERY)}, upward="MB", across="method")]
    ),
}


def words(figure: Figure) -> list[Text]:
    """Return every text that is shown."""
    figure.draw_without_rendering()
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    ticks = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for label in axis.get_ticklabels(which="both")
    }
    within = set()
    for axes in figure.axes:
        for axis, low, high in (
            (axes.xaxis, *sorted(axes.get_xlim())),
            (axes.yaxis, *sorted(axes.get_ylim())),
        ):
            for tick in axis.get_major_ticks():
                if low <= tick.get_loc() <= high:
                    within.add(tick.label1)
    return [text for text in shown if text not in ticks or text in within]


def overlap(first: Bbox, other: Bbox) -> bool:
    shared = Bbox.intersection(first, other)
    return shared is not None and shared.width > 1 and shared.height > 1


@pytest.mark.parametrize("name", FIGURES)
def test_words_are_whole_and_apart(name: str, tmp_path: Path) -> None:
    figure = FIGURES[name]()
    assert isinstance(figure, Figure) and "matplotlib.pyplot" not in sys.modules
    boxes = {text: text.get_window_extent() for text in words(figure)}
    edge = figure.bbox.padded(1)
    outside = [
        box.x0 < edge.x0 or box.x1 > edge.x1 or box.y0 < edge.y0 or box.y1 > edge.y1 for box in boxes.values()
    ]
    assert not [text.get_text() for text in itertools.compress(boxes, outside)]
    turned = [
        text for text in boxes if text.get_rotation() % 90
    ]  # slanted labels: their boxes overlap, they do not
    pairs = itertools.combinations([text for text in boxes if text not in turned], 2)
    colliding = [(a.get_text(), b.get_text()) for a, b in pairs if overlap(boxes[a], boxes[b])]
    assert not colliding
    for legend in figure.findobj(Legend):
        assert not any(overlap(legend.get_window_extent(), axes.get_tightbbox()) for axes in figure.axes)
    save(figure, tmp_path / "chart.png")
    picture = (tmp_path / "chart.png").read_bytes()
    assert picture.startswith(PNG) and len(picture) > 5_000 and len(list(tmp_path.iterdir())) == 1


def test_axes_say_what_they_show() -> None:
    panels = draw_curves(records(20)).axes
    assert [axes.get_xlabel() for axes in panels] == ["round", "round", "sent so far, both ways (MB)"]
    assert panels[1].get_ylabel() == "mean loss per sample (nats)"
    sent, accuracy = panels[2].lines[0].get_data()
    assert list(sent[:3]) == [4.0, 8.0, 12.0] and accuracy[-1] == pytest.approx(95, abs=1)
    assert len(draw_curves(records(5, charged=True), devices=[0.5, 1.0]).axes) == 6


def validated(count: int) -> list[RoundRecord]:
    return [
        RoundRecord(
            round=n, loss=1.0, validation_loss=1.0, validation_accuracy=0.1 * (n + 1), bytes_up=1_000_000
        )
        for n in range(count)
    ]


def test_a_validation_part_is_named() -> None:
    first, losses, *_ = draw_curves(validated(4)).axes
    assert first.get_ylabel().startswith("validation accuracy (%)")
    assert "validation loss" in [text.get_text() for text in losses.texts] + [
        text.get_text() for legend in [losses.get_legend()] if legend for text in legend.get_texts()
    ] + [str(line.get_label()) for line in losses.lines]
    for axes in draw_comparison({"sflam": [validated(4)]}).axes:
        assert axes.get_ylabel().startswith("validation accuracy (%)")


def test_a_run_that_ended_early_stays_where_it_was() -> None:
    """Seeds of 2 and of 4 rounds: means over both up to the longest, against rounds and against what was sent."""
    by_round, by_bytes = draw_comparison({"sflam": [validated(2), validated(4)]}).axes
    (across, accuracy), (sent, again) = (axes.lines[0].get_data() for axes in (by_round, by_bytes))
    assert list(across) == [1, 2, 3, 4]
    assert list(accuracy) == pytest.approx([10, 20, 25, 30]) == list(again)
    assert list(sent) == pytest.approx([1, 2, 2.5, 3])


@pytest.mark.parametrize(("best", "label"), [(0.95, "axis 60 to 100"), (0.3, "axis 20 to 32")])
def test_an_accuracy_axis_is_zoomed_to_the_data_and_says_so(best: float, label: str) -> None:
    axes = draw_curves(records(20, best=best)).axes[0]
    assert axes.get_ylabel() == f"test accuracy (%), {label}"
    low, high = (float(word) for word in label.removeprefix("axis ").split(" to "))
    assert axes.get_ylim() == (pytest.approx(low, abs=1), pytest.approx(high, abs=2))
    for axes in draw_comparison(methods()).axes:
        low, high = axes.get_ylim()
        assert axes.get_ylabel() == "test accuracy (%), axis 50 to 100"
        for line in axes.lines:
            assert low <= min(line.get_ydata()) and max(line.get_ydata()) <= high


def test_an_axis_from_0_to_100_needs_no_words() -> None:
    wide = [replace(item, accuracy=share) for item, share in zip(records(2), (0.01, 0.99), strict=True)]
    assert draw_curves(wide).axes[0].get_ylabel() == "test accuracy (%)"


@pytest.mark.parametrize(
    ("seeds", "note"), [(3, "bars: 95 % confidence interval (Student t, n = 3 seeds)"), (1, "")]
)
def test_error_bars_say_what_they_are(seeds: int, note: str) -> None:
    figure = draw_comparison(methods(seeds=seeds))
    (legend,) = figure.legends
    assert legend.get_title().get_text() == note
    assert bool(figure.axes[0].containers) == (seeds > 1)
    (legend,) = swept().legends
    assert legend.get_title().get_text() == "bars: 95 % confidence interval (Student t, n = 3 seeds)"
    (legend,) = stable().legends
    assert legend.get_title().get_text() == "bars: standard error over independent training sets"


def test_an_error_bar_is_the_confidence_interval() -> None:
    """Of 50, 60 and 70 the deviation is 10, and Student's t of two degrees 4.302653."""
    runs = [[replace(record, accuracy=share) for record in records(1)] for share in (0.5, 0.6, 0.7)]
    (bars,) = draw_comparison({"sflam": runs}).axes[0].containers
    ((low, high),) = bars.lines[2][0].get_segments()
    assert (low[1], high[1]) == pytest.approx((60 - 43.02653 / 3**0.5, 60 + 43.02653 / 3**0.5))


def test_a_method_whose_cost_is_unknown_has_no_line_there() -> None:
    figure = draw_comparison(methods(("sflam", "central"), 2))
    lines = [{line.get_label() for line in axes.lines if line.get_label()[0] != "_"} for axes in figure.axes]
    assert lines == [{"sflam", "central"}, {"sflam", "central"}, {"sflam"}, {"sflam"}]


def test_plans_far_off_are_named_in_the_legend_only() -> None:
    figure = front()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "equal (far off: 900 s, 1 J)" in names and figure.axes[0].get_xlim()[1] < 100


def test_a_legend_of_a_hundred_lines_names_some_and_leaves_the_panels_their_room() -> None:
    def panel(axes: Axes) -> None:
        for number in range(100):
            axes.plot([0, 1], [0, number], label=f"plan.latency_weight={number / 100}")

    figure = draw([panel] * 4)
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names[0] == "plan.latency_weight=0.0" and names[-1] == "plan.latency_weight=0.99"
    assert len(set(names)) == len(names) < 60
    assert legend.get_title().get_text() == f"{len(names)} of 100 lines are named, all are in the data"
    assert legend.get_window_extent().height < figure.bbox.height / 2


def test_nothing_to_draw_and_nowhere_to_write_are_clear(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no rounds to draw"):
        draw_curves([])
    with pytest.raises(RunError, match="no devices to draw"):
        draw_allocation(NONE)
    with pytest.raises(RunError, match="no users to draw"):
        draw_map(NONE, np.zeros((0, 2)), np.zeros((0, 2)), layers=2)
    with pytest.raises(RunError, match="no points to draw"):
        draw_front([])
    with pytest.raises(RunError, match="cannot be written"):
        save(draw_curves(records(2)), tmp_path / "absent" / "a.png")
