"""The tutorials, run as written: the blocks of each in order, in an empty folder."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Cli

from sflam import config
from sflam.allocate.registry import CELL_METHODS, register
from sflam.codec.quantizers import QUANTIZERS
from sflam.codec.torch_quantizers import TORCH_QUANTIZERS
from sflam.codec.torch_quantizers import register as register_quantizer
from sflam.codec.uniform import Uniform
from sflam.data.partition import PARTITIONS
from sflam.errors import ConfigError
from sflam.registry import OWN
from sflam.simulate.policies import POLICIES
from sflam.simulate.policies import register as register_policy

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Take back what a test registers."""
    dicts = (CELL_METHODS, PARTITIONS, QUANTIZERS, TORCH_QUANTIZERS, POLICIES)
    before = [dict(each) for each in dicts]
    yield
    for each, kept in zip(dicts, before, strict=True):
        each.clear()
        each.update(kept)  # type: ignore[arg-type]
    for names in OWN.values():
        names.clear()


def blocks_of(page: str) -> list[tuple[str, str]]:
    """Return (language, text) of every block that is meant to run."""
    found = BLOCK.findall((TUTORIALS / page).read_text(encoding="utf-8"))
    assert {language for language, _ in found} <= {"sh", "python", "text"}
    return [block for block in found if block[0] != "text"]


def printed_by(page: str, cli: Cli, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Run the blocks of a page, and return the lines that its Python printed."""
    names: dict[str, object] = {}
    printed = ""
    for language, text in blocks_of(page):
        if language == "python":
            capsys.readouterr()
            exec(compile(text, page, "exec"), names)
            printed += capsys.readouterr().out
            continue
        for line in text.splitlines():
            command, *words = shlex.split(line)
            done = cli(*words)
            assert (command, done.code) == ("sflam", 0), (line, done.err)
    return printed.splitlines()


def test_the_first_run_runs_as_written(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    [line] = printed_by("first_run.md", cli, capsys)
    assert line.startswith("accuracy ") and line.endswith(" bytes up")
    assert (tmp_path / "runs" / "third" / "report.html").is_file()
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 360
    text = (TUTORIALS / "first_run.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([\w./]+)` \|", text, re.MULTILINE)
    assert listed and [name for name in listed if not (tmp_path / "runs" / "first" / name).exists()] == []


def test_own_methods_run_as_written(
    cli: Cli,
    forgotten: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = printed_by("own_methods.md", cli, capsys)
    assert [line.split(":")[0] for line in lines if " s, " in line] == ["sflam+optimal", "sflam+by-payload"]
    sent = [line.rpartition(", ")[2] for line in lines if line.startswith(("uniform", "clipped"))]
    assert len(sent) == 2 and sent[0] == sent[1]
    assert lines[-1] == "[(0, 1), (2, 3)]" and lines[-2].startswith("worst device: ")
    monkeypatch.setattr(sys, "argv", ["mine.py", "plan", "--method", "full", "--json"])
    with pytest.raises(SystemExit) as left:
        runpy.run_path("mine.py", run_name="__main__")
    assert not left.value.code and '"method": "full"' in capsys.readouterr().out


def test_each_extension_is_shown_in_under_twenty_lines() -> None:
    blocks = [text for language, text in blocks_of("own_methods.md") if language == "python"]
    for hook in ("register_allocator", "register_quantizer", "register_policy", "register_partition"):
        [shown] = [text for text in blocks if f"{hook}(" in text]
        assert len(shown.splitlines()) < 20


def test_names_are_checked(forgotten: None) -> None:
    for name in ("optimal", "Mine", "a+b", "a,b", "x" * 33, ""):
        with pytest.raises(ConfigError, match="allocator"):
            register(name, CELL_METHODS["equal"])
    with pytest.raises(ConfigError, match="'uniform' exists already"):
        register_quantizer(Uniform())
    with pytest.raises(ConfigError, match="exists already"):
        register_policy("loss", POLICIES["loss"])
    long = Uniform()
    long.name = "much-too-long"
    with pytest.raises(ConfigError, match="at most 8"):
        register_quantizer(long)
    with pytest.raises(ConfigError, match=r"plan.method is 'mine'.*quant.scheme.*fleet.policy"):
        config.load(None, ["plan.method=mine", "quant.scheme=mine", "fleet.policy=mine"])
    register("mine", CELL_METHODS["equal"])
    register_policy("mine", POLICIES["loss"])
    assert config.load(None, ["plan.method=mine", "fleet.policy=mine"]).plan.method == "mine"
