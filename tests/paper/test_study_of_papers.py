"""A study of several parts: trained, planned and judged; resumed without repeating; files that cannot be."""

from __future__ import annotations

import csv
import json
import re
import runpy
import tomllib
from pathlib import Path

import pytest

from sflam import config
from sflam.compare.study_file import read_table
from sflam.paper.paper_file import paper_study
from sflam.paper.running import run_papers, work_of
from tests.conftest import Cli, assert_refused
from tests.report.page_checks import expect_whole

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "configs" / "sflam" / "study.toml"
PARTS = """
title = "A small study"
scales = ["short", "long"]
[parts.trained]
job = "job.toml"
methods = ["sflam", "sfl-v1"]
seeds = 2
targets = [0.01]
[parts.trained.long]
job = "elsewhere.toml"
[parts.varied]
job = "job.toml"
methods = ["sflam+optimal", "sflam+equal"]
seeds = 2
vary = { "network.bandwidth_mhz" = [1, 20] }
[parts.planned]
kind = "plan"
methods = ["equal"]
draws = 2
vary = { "network.bandwidth_mhz" = [1, 2, 4] }
[[claims]]
paper = "P"
where = "abstract"
says = "8 bits take less time than 32"
part = "trained"
metric = "virtual_s to target"
arms = ["sflam"]
against = "sfl-v1"
[[claims]]
paper = "P"
where = "figure 2"
says = "a wider band takes less time"
part = "planned"
metric = "latency"
arms = ["equal network.bandwidth_mhz=1", "equal network.bandwidth_mhz=2", "equal network.bandwidth_mhz=4"]
quantity = "trend"
[[claims]]
paper = "P"
where = "figure 3"
says = "a hundred times faster"
part = "varied"
metric = "virtual_s"
arms = ["sflam+equal network.bandwidth_mhz=20"]
against = "sflam+equal network.bandwidth_mhz=1"
number = 0.01
[[claims]]
paper = "P"
where = "figure 4"
says = "their own curve"
reason = "it wants a GPU"
"""


@pytest.fixture
def file(small: tuple[str, ...], tmp_path: Path) -> Path:
    job = config.load(None, [*small, "learn.rounds=1", "network.simulate=true"])
    (tmp_path / "job.toml").write_text(config.to_toml(job))
    path = tmp_path / "study.toml"
    path.write_text(PARTS)
    return path


def test_parts_are_run_and_claims_are_judged(cli: Cli, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    listed = cli("study", file, "--list", "--json", "--out", out)
    assert listed.code == 0, listed.err
    parts = {part["part"]: part for part in json.loads(listed.out[-1])["parts"]}
    assert parts["trained"]["states"] == {"to train": 4} and parts["trained"]["seconds"] > 0
    assert parts["planned"]["states"] == {"finished": 0, "to plan": 6} and not out.exists()
    done = cli("study", file, "--json", "--jobs", 1, "--out", out)
    assert done.code == 0, done.err
    found = json.loads(done.out[-1])
    assert found["scale"] == "short"
    assert [claim["verdict"] for claim in found["claims"]] == [
        "holds in order",
        "holds in order",
        "holds in order",
        "not measured",
    ]
    ratio, trend, tenth, none = found["claims"]
    assert ratio["n"] == 2 and 0 < ratio["low"] <= ratio["mean"] <= ratio["high"] < 1
    assert (trend["mean"], tenth["number"], none["why"]) == (-1.0, 0.01, "it wants a GPU")
    runs = {path.parent.name: path.stat().st_mtime_ns for path in (out / "runs").glob("*/result.json")}
    assert len(runs) == 4 + 6, "the varied part's 8 runs share the 2 of the first one that they repeat"
    with (out / "claims.csv").open(newline="") as text:
        assert [row["verdict"] for row in csv.DictReader(text)] == [
            each["verdict"] for each in found["claims"]
        ]
    assert (
        "holds in order" in (out / "claims.tex").read_text()
        and "\\toprule" in (out / "claims.tex").read_text()
    )
    for name in ("trained", "varied", "planned"):
        assert (out / "figures" / f"{name}.svg").is_file() and (out / "figures" / f"{name}.csv").is_file()
    page = expect_whole((out / "study.html").read_text(), {"claims", "rule", "parts"})
    assert "it wants a GPU" in page.words
    again = cli("study", file, "--jobs", 1, "--out", out)
    assert again.code == 0 and not any("started" in line for line in again.err)
    assert runs == {
        path.parent.name: path.stat().st_mtime_ns for path in (out / "runs").glob("*/result.json")
    }


def test_plans_among_several_servers_are_a_part_too(file: Path, tmp_path: Path) -> None:
    values = read_table(file)
    planned = {"kind": "plan", "methods": ["nearest", "equal"], "draws": 1}
    values["parts"] = {
        "edge": planned | {"set": ["network.scenario=refB", "network.devices=4", "network.servers=2"]}
    }
    values["claims"] = []
    found = run_papers(paper_study(values, file), tmp_path / "out")
    assert found.failed == {} and found.outcomes["edge"].measured["equal"]["objective"][0]
    assert found.outcomes["edge"].measured["equal"]["device_memory"] == [None]


def test_a_part_that_cannot_be_run_says_why(file: Path, tmp_path: Path) -> None:
    file.write_text(
        PARTS.replace("network.bandwidth_mhz", "plan.deadline", 1).replace('"job.toml"', '"job.toml"', 1)
    )
    values = read_table(file)
    values["parts"]["trained"] |= {"set": ["data.name=nowhere/at-all"]}
    study = paper_study(values, file)
    found = run_papers(study, tmp_path / "out", only="trained")
    assert found.outcomes == {} and "nowhere/at-all" in found.failed["trained"]
    assert found.findings[0].verdict == "not measured" and "nowhere/at-all" in found.findings[0].why
    assert found.findings[1].why == "part planned was not run"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[parts.planned]", "[parts.planned]\nkinds = 1"), r"\[parts.planned\]: unknown key 'kinds'"),
        (('kind = "plan"', 'kind = "dream"'), "unknown kind 'dream'"),
        (("draws = 2", "draws = 0"), "draws is 0; it must be at least 1"),
        (("draws = 2", "seeds = 2"), "a part that is a plan has no key seeds"),
        (("seeds = 2", 'seeds = "two"'), r"\[parts.trained\]: seeds is 'two'; give a whole number"),
        (('part = "planned"', 'part = "planed"'), "unknown part 'planed'"),
        (('where = "figure 4"\n', ""), "where is missing"),
        (("number = 0.01", 'number = "0.01"'), "number is '0.01'; give a number"),
        (('scales = ["short", "long"]', "scales = 1"), "scales is 1; give a list of names"),
    ],
)
def test_a_file_that_cannot_be_is_one_line(
    cli: Cli, file: Path, tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    file.write_text(PARTS.replace(*change, 1))
    assert_refused(cli("study", file, "--list", "--out", tmp_path / "out"), words)


def test_options_that_do_not_go_together(cli: Cli, file: Path, tmp_path: Path) -> None:
    assert_refused(
        cli("study", file, "--scale", "tall"), "--scale tall is no scale of the file; it has short, long"
    )
    assert_refused(cli("study", file, "--shard", "0/2"), "--shard 0/2 is of one comparison")
    assert_refused(cli("study", file, "--only", "dreams"), "--only 'dreams' is in the name of no part")
    (tmp_path / "one.toml").write_text('job = "job.toml"\n')
    assert_refused(
        cli("study", tmp_path / "one.toml", "--scale", "twin"), "--scale twin is of a file of several parts"
    )


@pytest.mark.parametrize("scale", ["small", "full"])
def test_the_file_on_the_page_is_read(scale: str) -> None:
    page = (ROOT / "docs" / "how-to" / "study.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    [text] = [text for text in blocks if "[[claims]]" in text]
    study = paper_study(tomllib.loads(text), SHIPPED, scale)
    assert [part.name for part in study.parts] == ["baselines", "power", "tuned"] and len(study.claims) == 1


@pytest.mark.parametrize("scale", ["twin", "paper"])
def test_the_shipped_study_is_read(scale: str, tmp_path: Path) -> None:
    """Every claim names an arm and a metric that its part has; the parts name jobs that can be."""
    study = paper_study(read_table(SHIPPED), SHIPPED, scale)
    assert study.scale == scale and {claim.paper for claim in study.claims} == {
        "SFLAM",
        "Edge training",
        "CARD",
    }
    for work in work_of(study, tmp_path, only="planned-power" if scale == "paper" else "*"):
        assert not work.why and work.seconds > 0, work


def test_the_page_of_the_papers_shows_the_claims_of_the_file() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "paper_claims.py"))
    study = paper_study(read_table(SHIPPED), SHIPPED)
    shown = script["shown_claims"]()
    assert [(row[0], row[1]) for row in shown] == [
        (f"{claim.paper}, {claim.where}", claim.says) for claim in study.claims
    ], "run sflam study configs/sflam/study.toml, then scripts/paper_claims.py"
    verdicts = {row[-1] for row in shown}
    assert verdicts <= {"holds", "holds in order", "does not hold", "not decided", "not measured"}
