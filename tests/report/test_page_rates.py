"""The page of a comparison with a grid of learning rates, and of one that some runs are missing from."""

from __future__ import annotations

import html
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from tests.report.page_checks import COMPARISON, EVIL, ODD, expect_whole, places, render_some

from sflam import config
from sflam.compare import running
from sflam.compare.comparison import compare
from sflam.errors import ModelError, RunError
from sflam.records.saved import SAVED
from sflam.report.pages.written import write_page

SECTIONS = (COMPARISON - {"sweeps"}) | {"rates"}


@pytest.fixture(scope="module")
def rated(small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods at two rates and one that is lost, beside a third that fails."""
    folder = tmp_path_factory.mktemp("rates") / "rated"
    wanted = config.load(None, [*small, "learn.rounds=1", "network.simulate=true"])
    real = running.run_here

    def broken(task: running.Waiting, on_event: running.OnEvent) -> None:
        if task.job.learn.method == "local":
            raise ModelError(f"broken by {EVIL}")
        real(task, on_event)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "run_here", broken)
        compare(wanted, folder, ["fedlora", "central", "local"], rates=[1e-4, 0.003, 1e30]).save(folder)
    return folder


def command(text: str) -> list[str]:
    """Return the words of the command that repeats what a page shows."""
    code = re.search(r"<code>(.*?)</code>", text, re.DOTALL)
    assert code is not None
    return shlex.split(html.unescape(code[1]).replace("\\\n", " "))


def test_the_rates_are_on_the_page(rated: Path, tmp_path: Path) -> None:
    text = write_page(rated, tmp_path / "page.html").read_text()
    output = " ".join(expect_whole(text, SECTIONS).words)
    for words in (
        "Rate: the best of 0.0001, 0.003, 1e+30 by validation accuracy on seed 0; chosen on validation",
        "diverged",
        "Failed, and left out: run local-0-",
        "and in learn.lr",
    ):
        assert words in output, words
    for name, row in json.loads((rated / SAVED).read_text())["methods"].items():
        assert f"<td>{name}</td><td>{row['learning_rate']:g}</td>" in text
    words = command(text)
    rates = words[words.index("--rates") + 1].split(",")
    assert [float(rate) for rate in rates] == [1e-4, 0.003, 1e30]
    assert words[words.index("--methods") + 1] == "fedlora,central,local"  # also what failed


def test_a_comparison_from_before_the_grid_still_has_its_page(rated: Path, tmp_path: Path) -> None:
    shutil.copytree(rated, tmp_path / "old")
    result = json.loads((rated / SAVED).read_text())
    old = json.loads(json.dumps(result))
    del old["rates"]["part"]  # when rates were chosen on the test part
    (tmp_path / "old" / SAVED).write_text(json.dumps(old))
    text = " ".join(
        expect_whole(write_page(tmp_path / "old", tmp_path / "old.html").read_text(), SECTIONS).words
    )
    assert "by held-out accuracy on seed 0; the same held-out data chooses" in text
    for key in ("rates", "asked", "failed"):
        del result[key]
    for row in result["methods"].values():
        del row["learning_rate"]
    (tmp_path / "old" / SAVED).write_text(json.dumps(result))
    text = write_page(tmp_path / "old", tmp_path / "old.html").read_text()
    expect_whole(text, SECTIONS - {"rates"})
    words = command(text)
    assert words[words.index("--methods") + 1] == "fedlora,central" and "--rates" not in words


def test_whatever_the_grid_holds_there_is_a_page_or_one_line(
    rated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render_some(monkeypatch)
    shutil.copytree(rated, tmp_path / "odd")
    path = tmp_path / "odd" / SAVED
    whole = json.loads(path.read_text())
    done = {RunError: 0, None: 0}
    mine = ("rates", "asked", "failed")
    ways = [way for way in places(whole) if way[0] in mine or way[-1] == "learning_rate"]
    for number, (way, odd) in enumerate((way, odd) for way in ways for odd in ODD):
        if number % 3:  # a third of them, in turn: all would take minutes
            continue
        values = json.loads(json.dumps(whole))
        holder = values
        for key in way[:-1]:
            holder = holder[key]
        holder[way[-1]] = odd
        path.write_text(json.dumps(values))
        try:
            text = write_page(path.parent, tmp_path / "odd.html").read_text()
            assert not re.search("<(script|img)", text), way
            done[None] += 1
        except RunError as error:
            assert "\n" not in str(error) and "ask sflam compare for the same again" in str(error)
            done[RunError] += 1
    assert min(done.values()) > 10, done
