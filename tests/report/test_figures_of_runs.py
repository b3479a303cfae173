"""Figures as functions, their numbers and tables as files, and runs side by side on one page."""

from __future__ import annotations

import csv
import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from tests.conftest import Cli, assert_refused, files
from tests.report.charges import charge
from tests.report.page_checks import expect_whole
from tests.simulate.builders import ran

import sflam
from sflam.errors import ConfigError, RunError
from sflam.records.history import RoundRecord
from sflam.report.charts.figure import WIDTHS, save_all
from sflam.report.charts.style import looks_of
from sflam.report.charts.tidy import rows_of
from sflam.report.export import export_lines
from sflam.report.statistics import half_width
from sflam.report.tables import csv_text, escaped, latex, markdown, numbers
from sflam.report.together import differing, read_together

TOGETHER = {"results", "target", "curves", "bars", "settings", "folders"}


def line(*shares: float, charged: bool = True) -> list[RoundRecord]:
    """Return a round for each accuracy."""
    return [
        RoundRecord(round=n, loss=1.0, accuracy=share, bytes_up=100, charge=charge(n) if charged else None)
        for n, share in enumerate(shares)
    ]


@pytest.fixture
def found() -> dict[str, list[list[RoundRecord]]]:
    """Return two lines of two seeds."""
    return {
        "sflam": [line(0.5, 0.8), line(0.6, 0.7)],
        "central": [line(0.7, 0.9, charged=False), line(0.7, 0.9, charged=False)],
    }


def test_a_figure_of_accuracy_has_the_numbers_of_its_runs(found: dict[str, list[list[RoundRecord]]]) -> None:
    drawn = sflam.draw_accuracy(found)
    assert isinstance(drawn, Figure) and len(drawn.axes) == 1
    rows = [row for row in rows_of(drawn) if row["series"] == "sflam"]
    assert [(row["x"], row["y"]) for row in rows] == [(1.0, pytest.approx(55)), (2.0, pytest.approx(75))]
    half = half_width(50**0.5, 2)
    assert rows[0]["high"] - rows[0]["y"] == pytest.approx(half) == rows[0]["y"] - rows[0]["low"]
    over_bytes = rows_of(sflam.draw_accuracy(found, "bytes"))
    assert {row["x_label"] for row in over_bytes} == {"sent so far, both ways (MB, log scale)"}
    assert {row["series"] for row in rows_of(sflam.draw_accuracy(found, "seconds"))} == {"sflam"}


def test_a_figure_is_drawn_into_given_axes(found: dict[str, list[list[RoundRecord]]]) -> None:
    own = Figure()
    left, right = own.subplots(1, 2)
    assert (
        sflam.draw_accuracy(found, axes=left) is own and sflam.draw_cost(found, "joules", axes=right) is own
    )
    assert left.get_legend() is not None and [text.get_text() for text in left.get_legend().get_texts()] == [
        "sflam",
        "central",
    ]
    colours = {each.get_label(): each.get_color() for each in left.get_lines() if each.get_label() in found}
    assert colours == {name: look.colour for name, look in looks_of(list(found)).items()}
    assert len(right.patches) == 1  # central has no joules


def test_bars_are_means_with_intervals(found: dict[str, list[list[RoundRecord]]]) -> None:
    rows = {row["x"]: row for row in rows_of(sflam.draw_cost(found, "accuracy"))}
    assert rows["sflam"]["y"] == pytest.approx(75) and rows["central"]["y"] == pytest.approx(90)
    assert rows["sflam"]["high"] == pytest.approx(75 + half_width(50**0.5, 2))
    assert rows["central"]["low"] == pytest.approx(90)


@pytest.mark.parametrize("width", ["ieee-1", "ieee-2"])
def test_a_figure_is_as_wide_as_a_column(found: dict[str, list[list[RoundRecord]]], width: str) -> None:
    assert sflam.draw_accuracy(found, width=width).get_size_inches()[0] == WIDTHS[width][0]


def test_what_cannot_be_drawn_is_refused(found: dict[str, list[list[RoundRecord]]]) -> None:
    with pytest.raises(ConfigError, match="'watts'"):
        sflam.draw_accuracy(found, "watts")
    with pytest.raises(ConfigError, match="ieee-3"):
        sflam.draw_accuracy(found, width="ieee-3")
    with pytest.raises(ConfigError, match="none of central has joules"):
        sflam.draw_cost({"central": found["central"]}, "joules")


def test_files_of_a_figure_are_the_same_again(
    found: dict[str, list[list[RoundRecord]]], tmp_path: Path
) -> None:
    drawn = sflam.draw_accuracy(found)
    paths = save_all(drawn, tmp_path / "a.b")
    assert [path.name for path in paths] == ["a.b.png", "a.b.pdf", "a.b.svg", "a.b.csv"]
    first = files(tmp_path)
    save_all(sflam.draw_accuracy(found), tmp_path / "a.b")
    again = files(tmp_path)
    assert first["a.b.csv"] == again["a.b.csv"] and first["a.b.pdf"][:5] == b"%PDF-"
    rows = list(csv.DictReader(io.StringIO(first["a.b.csv"].decode())))
    assert len(rows) == 4 and float(rows[0]["y"]) == pytest.approx(55)
    assert save_all(Figure(), tmp_path / "mine", ["svg"]) == [tmp_path / "mine.svg"]


def test_tables_are_escaped() -> None:
    assert escaped("a_b & 5 % ± 1 > {x} \\") == r"a\_b \& 5 \% $\pm$ 1 $>$ \{x\} \textbackslash{}"
    text = latex(["method", "time"], [["a_b", "3 ± 1 s"]], "n = 3")
    assert text.count("\\\\") == 2 and "\\toprule" in text and "\\begin{tabular}{lr}" in text
    assert "\\caption{n = 3}" in text and r"a\_b & 3 $\pm$ 1 s \\" in text
    assert markdown(["m", "x"], [["a|b", "1"]]) == "| m | x |\n|---|---:|\n| a\\|b | 1 |\n"
    assert csv_text([{"a": 1, "b": None}]) == "a,b\n1,\n" and csv_text([]) == "\n"


def test_numbers_of_a_missed_target_are_bounds() -> None:
    from sflam.report.outcome import Compared

    results = tuple(
        {"accuracy": 0.8, "rounds": 2, "virtual_s": 3.0, "energy_j": 1.0, "bytes_up": 1, "bytes_down": 4}
        | {"run_dir": "x"}
        for _ in range(2)
    )
    made = Compared(name="a", results=results, records=(tuple(line(0.5, 0.8)), tuple(line(0.5, 0.6))))
    rows = {row["figure"]: row for row in numbers({"a": made.to_dict([0.75])})}
    assert rows["accuracy"]["mean"] == 0.8 and rows["accuracy"]["n"] == 2
    missed = rows["rounds to 0.75"]
    assert (missed["mean"], missed["at_least"], missed["reached"], missed["n"]) == (None, 2.0, 1, 2)


@pytest.fixture(scope="module")
def runs(small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return a run, the same again, and one at another rate."""
    room = tmp_path_factory.mktemp("together")
    settings = (("learn.lr=0.001",), ("learn.lr=0.001", "seed=1"), ("learn.lr=0.01",))
    for number, own in enumerate(settings):
        ran(small, room / f"run{number}", "learn.rounds=2", *own).finish()
    return [room / f"run{number}" for number in range(3)]


def test_runs_side_by_side_are_one_page_and_files(cli: Cli, runs: list[Path], tmp_path: Path) -> None:
    words = ["--together", "--labels", "slow,slow,<b>quick", "--out", tmp_path / "page.html"]
    done = cli("report", *runs, *words, "--figures", tmp_path / "figures", "--width", "ieee-1")
    assert done.code == 0, done.err
    text = (tmp_path / "page.html").read_text()
    page = expect_whole(text, TOGETHER)
    shown = " ".join(" ".join(page.words).split())
    assert "learn.lr" in shown and "n = 2 seeds" in shown and "<b>quick" in shown
    written = files(tmp_path / "figures")
    assert written.keys() == {
        *(f"comparison.{suffix}" for suffix in ("png", "pdf", "svg", "csv")),
        *("tables.tex", "tables.md", "results.csv"),
    }
    series = {row["series"] for row in csv.DictReader(io.StringIO(written["comparison.csv"].decode()))}
    assert series == {"slow", "<b>quick"}


def test_labels_make_lines(runs: list[Path]) -> None:
    found = read_together(runs, ["a", "a", "b"])
    assert [(name, len(each)) for name, each in found.items()] == [("a", 2), ("b", 1)]
    assert [row[0] for row in differing(found)] == ["learn.lr"]
    assert list(sflam.read_runs(runs)) == ["run0", "run1", "run2"]
    assert len(sflam.draw_accuracy(sflam.read_runs(runs), "joules").axes) == 1
    with pytest.raises(ConfigError, match="2 for 3 runs; give one for each"):
        read_together(runs, ["a", "b"])
    with pytest.raises(RunError, match="holds no run"):
        read_together([runs[0].parent])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--labels", "a"), "--labels names runs side by side; add --together"),
        (("--width", "ieee-1"), "add it, or leave --width out"),
        (("--figures", "figures", "--width", "ieee-9"), "ieee-9"),
        (("--together", "--labels", "a,b"), "2 for 1 runs"),
    ],
)
def test_a_wrong_report_is_refused(
    cli: Cli, runs: list[Path], tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    more = [tmp_path / word if word == "figures" else word for word in words]
    assert_refused(cli("report", runs[0], *more, "--out", tmp_path / "page.html"), message)


def test_a_run_of_a_person_s_own_fleet_is_drawn_too(runs: list[Path], tmp_path: Path) -> None:
    """What trained it makes no difference: the folder is read."""
    shutil.copytree(runs[0], tmp_path / "mine")
    drawn = sflam.draw_accuracy(sflam.read_runs([runs[0], tmp_path / "mine"], ["ours", "mine"]))
    points = rows_of(drawn)
    ours, mine = (
        [replace_series(row) for row in points if row["series"] == name] for name in ("ours", "mine")
    )
    assert ours == mine


def replace_series(row: dict[str, object]) -> dict[str, object]:
    """Return a row without the name of its line."""
    return {key: value for key, value in row.items() if key != "series"}


def test_tables_name_how_many_seeds(found: dict[str, list[list[RoundRecord]]], tmp_path: Path) -> None:
    from sflam.report.outcome import Compared

    result = {"accuracy": 0.8, "rounds": 2, "virtual_s": 3.0, "energy_j": 1.0, "bytes_up": 1, "bytes_down": 4}
    made = Compared(
        name="sflam",
        results=tuple(result | {"run_dir": "x", "accuracy": share} for share in (0.7, 0.8)),
        records=tuple(map(tuple, found["sflam"])),
    )
    rows = {"sflam": made.to_dict([0.7])}
    export_lines({"sflam": found["sflam"]}, rows, [{"accuracy": 0.7, "rule": "as given"}], tmp_path)
    for name in ("tables.tex", "tables.md"):
        text = (tmp_path / name).read_text()
        assert len(re.findall("n = 2 seeds", text)) == 2 and "70.0" in text
    assert replace(made, name="other").to_dict()["seeds"] == 2
