"""The notebooks of the documentation: made of the cells beside them, and run from the first to the last."""

from __future__ import annotations

import os
import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from tests.report.test_progress import RECORD, UNEVALUATED

from sflam.report.charts.figure import draw
from sflam.report.charts.lines import Line, line_panel
from sflam.report.terminal import notebook_bar
from sflam.report.terminal.progress import Progress
from sflam.report.terminal.runs_progress import RunsProgress

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "docs" / "notebooks").glob("*.py"))
LARGEST = 300_000
"""Bytes of a notebook with its pictures."""


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "notebooks.py"))


class Cell:
    """What IPython keeps of what is displayed and updated."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[str] = []
        kernel = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
        monkeypatch.setitem(sys.modules, "IPython", kernel)
        monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=self.display))
        monkeypatch.setattr(notebook_bar, "LEAST_S", 0.0)

    def display(self, shown: object, display_id: bool) -> Cell:
        """Begin an output."""
        assert display_id
        self.update(shown)
        return self

    def update(self, shown: object) -> None:
        """Draw it anew."""
        self.shown.append(shown._repr_html_())  # type: ignore[attr-defined]


def test_a_kernel_gets_one_bar_that_is_redrawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = Cell(monkeypatch)
    with Progress(2) as progress:
        progress.update(RECORD)
        progress.update(UNEVALUATED)
    assert [re.findall(r'value="(\d)" max="(\d)"', each) for each in cell.shown] == [
        [(done, "2")] for done in "0122"
    ]
    assert "round 2/2" in cell.shown[-1] and "accuracy 91.2 %" in cell.shown[-1]
    assert capsys.readouterr() == ("", "")
    with RunsProgress(4, 2) as runs:
        runs.on_event("<a>", "done", 2)
    assert "1/2 runs round 2/4" in cell.shown[-1] and "<a>" not in cell.shown[-1]


def test_no_kernel_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """IPython in a terminal has a shell without a kernel."""
    shell = SimpleNamespace(get_ipython=lambda: SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython", shell)
    assert not notebook_bar.in_kernel()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not notebook_bar.in_kernel()


def test_a_figure_is_a_picture() -> None:
    panel = line_panel("t", [Line(name="a", points=[(0, 1), (1, 2)])], across="x", upward="y")
    assert draw([panel])._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_is_of_the_cells_beside_it(script: dict[str, Any], source: Path) -> None:
    path = source.with_suffix(".ipynb")
    text, book = path.read_text(encoding="utf-8"), nbformat.read(path, as_version=4)
    nbformat.validate(book)
    own = [(cell.cell_type, cell.source) for cell in script["cells_of"](source.read_text(encoding="utf-8"))]
    assert [(cell.cell_type, cell.source) for cell in book.cells] == own, "run scripts/notebooks.py"
    assert len(text) < LARGEST and not re.search(r"/tmp/|/home/|site-packages", text)
    expect_shown(book)
    named = f"../notebooks/{path.name}"
    assert named in (ROOT / "docs" / "how-to" / "figures.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_runs(script: dict[str, Any], source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    expect_shown(script["executed"](source))


def expect_shown(book: nbformat.NotebookNode) -> None:
    """Check that cells show tables or pictures, a run one bar that is full, and that nothing is a warning."""
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    assert outputs and not [output for output in outputs if output.get("name") == "stderr"]
    for output in outputs:
        assert output.output_type != "error"
        data = output.get("data", {})
        assert "<Figure" not in data.get("text/plain", "") or "image/png" in data
    for cell in book.cells:
        bars = [text for each in cell.get("outputs", []) if "<progress" in (text := _html(each))]
        calls = len(re.findall(r"\b(?:sflam\.train|compare)\(", cell.source))
        assert len(bars) == calls
        for bar in bars:
            [(done, all_of_them)] = re.findall(r'value="(\d+)" max="(\d+)"', bar)
            assert done == all_of_them


def _html(output: nbformat.NotebookNode) -> str:
    text: str = output.get("data", {}).get("text/html", "")
    return text
