"""Rewrite the numbers and pictures of the README and the pages, by running what they show. Takes about a minute.

A block between ``<!-- numbers: NAME -->`` and ``<!-- end -->`` is what ``BLOCKS[NAME]`` returns. Pictures go to
docs/images; report.png needs a Chromium, and stays as it is without one.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from shutil import copy

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

import sflam
from sflam import config
from sflam.planner.cell import decide
from sflam.planner.decision import Decision
from sflam.report.pages.written import write_page
from sflam.report.terminal.plan_table import methods_table, plan_table
from sflam.report.terminal.run_table import rounds_table
from sflam.run.run import Run

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
EXAMPLE = ROOT / "examples" / "network.toml"
WIDTH = 80
TWO_SECTIONS = "header, footer, main > :not(#timeline, #allocation) { display: none }"
HOST_TIME = re.compile(r" \([\d.e+]+/s\)|; solved in [\d.]+ \w+")
BLOCK = re.compile(r"(<!-- numbers: ([\w-]+) -->\n```text\n)(.*?)(```\n<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """Return every file that may hold such a block."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def as_text(shown: RenderableType, first: int = 1000, last: int = 0) -> str:
    """Return what a terminal would show, but for how long this machine took, which says more about its load.

    Of a table's rows the first and the last are kept, with dots between them.
    """
    parts = list(shown.renderables) if isinstance(shown, Group) else [shown]
    for table in parts:
        if isinstance(table, Table):
            table.columns = [each for each in table.columns if each.header not in ("time", "solved in")]
    console = Console(width=WIDTH, color_system=None, force_terminal=False)
    with console.capture() as captured:
        for part in parts:
            text = HOST_TIME.sub("", part.plain) if isinstance(part, Text) else part
            console.print(text)
    shown = (line.rstrip() for line in captured.get().splitlines())
    lines = [line for line in shown if line and "of this machine's time" not in line]
    begin = next(index for index, line in enumerate(lines) if "───" in line) + 1
    end = next((index for index in range(begin, len(lines)) if not lines[index].startswith(" ")), len(lines))
    if end - begin > first + last + 1:
        lines[begin + first : end - last] = ["    ..."]
    return "\n".join(lines) + "\n"


@cache
def default_run(rounds: int = 10) -> Run:
    """Train the default job, in a folder that is left behind."""
    run = sflam.start(
        config.load(None, [f"learn.rounds={rounds}"]), tempfile.mkdtemp() + "/digits-nano-vit-sflam-1"
    )
    for record in run.rounds():
        print(f"round {record.round + 1}: accuracy {record.accuracy:.1%}", file=sys.stderr)
    run.finish()
    return run


@cache
def example_plan() -> Decision:
    """Plan the example network by every method."""
    return decide(config.load(EXAMPLE), compare=True, draw=True)


@cache
def reference_plan() -> Decision:
    """Plan the reference cell by every method."""
    return decide(config.load(None, ["network.scenario=refA"]), compare=True)


def _methods(found: Decision) -> str:
    return as_text(methods_table([found.plan, *found.others]))


BLOCKS: dict[str, Callable[[], str]] = {
    "default-run": lambda: as_text(rounds_table(default_run().records), first=3, last=2),
    "plan": lambda: as_text(
        plan_table(example_plan().plan, example_plan().names, example_plan().title), first=3, last=1
    ),
    "plan-methods": lambda: _methods(example_plan()),
    "reference-methods": lambda: _methods(reference_plan()),
}


def rewritten(text: str) -> str:
    """Return a page's text with every block as it is now."""
    return BLOCK.sub(lambda found: found[1] + BLOCKS[found[2]]() + found[4], text)


def draw() -> None:
    """Rewrite the pictures."""
    copy(default_run().folder.path / "curves.png", IMAGES / "curves.png")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        example_plan().write(folder / "plan")
        copy(folder / "plan" / "allocation.png", IMAGES / "plan.png")
        job = config.load(None, ["network.simulate=true", "network.downlink_mbps=100", "learn.rounds=6"])
        sflam.train(job, folder / "run")
        write_page(folder / "run", folder / "whole.html")
        text = (folder / "whole.html").read_text(encoding="utf-8")
        page, picture = folder / "part.html", folder / "part.png"
        page.write_text(text.replace("</head>", f"<style>{TWO_SECTIONS}</style></head>"), encoding="utf-8")
        browser = [sys.executable, ROOT / "tests" / "report" / "browser.py", page, picture, "960"]
        if subprocess.run(browser, check=False).returncode:
            print("no picture of the report: it needs a Chromium; report.png stays as it is", file=sys.stderr)
        else:
            copy(picture, IMAGES / "report.png")


def main() -> None:
    """Rewrite all blocks and pictures."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        page.write_text(rewritten(text), encoding="utf-8")
    draw()


if __name__ == "__main__":
    main()
