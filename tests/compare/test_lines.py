"""Lines with settings of their own: any key swept, as a grid or together."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sflam import config
from sflam.compare.lines import LineName, parted, varied, with_settings
from sflam.compare.variants import variants_of
from tests.conftest import assert_refused, sets

VALUES = st.one_of(
    st.integers(0, 99).map(str),
    st.floats(0.001, 10).map(repr),
    st.lists(st.integers(0, 9), min_size=1, max_size=4).map(json.dumps),
    st.text("abc, []=", min_size=1, max_size=6).map(json.dumps),
)


@given(st.lists(VALUES, min_size=1, max_size=5, unique=True))
def test_commas_in_brackets_and_quotes_separate_nothing(values):
    assert parted(",".join(values)) == values


def test_a_grid_and_values_together():
    vary = ["learn.lr=0.001,0.003", 'model.targets=["query","value"],["query"]']
    assert varied(["sflam", "sl+equal"], vary)[:2] == [
        'sflam learn.lr=0.001 model.targets=["query","value"]',
        'sflam learn.lr=0.001 model.targets=["query"]',
    ]
    assert len(varied(["sflam", "sl+equal"], vary)) == 8
    assert varied(["sflam"], vary, together=True) == [
        'sflam learn.lr=0.001 model.targets=["query","value"]',
        'sflam learn.lr=0.003 model.targets=["query"]',
    ]
    assert varied(["sflam"], []) == ["sflam"]


def test_a_name_in_its_parts_and_the_job_of_it():
    name = 'sl+equal model.targets=["query", "value"] learn.lr=0.01'
    assert LineName.of(name) == LineName("sl", "equal", ('model.targets=["query", "value"]', "learn.lr=0.01"))
    job = config.load(None, ["network.simulate=true", "learn.rounds=3"])
    changed = with_settings(job, name)
    assert changed == config.load(None, [*config.overrides(job), *LineName.of(name).settings])
    assert with_settings(job, "sl+equal") is job


def test_every_line_has_the_job_of_its_settings():
    job = config.load(None, ["network.simulate=true"])
    names = varied(["sflam", "fedlora"], ["fleet.devices=4,8", "learn.lr=0.01,0.02"])
    found = variants_of(job, names, 2)
    assert [line.name for line in found] == names
    for line in found:
        settings = dict(item.split("=") for item in LineName.of(line.name).settings)
        assert [each.seed for each in line.jobs] == [0, 1]
        for each in line.jobs:
            assert each.fleet.devices == int(settings["fleet.devices"])
            assert each.learn.lr == float(settings["learn.lr"])
    assert len({run for line in found for run in line.runs}) == 16


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--vary", "learn.lr"), "write section.key=value,value"),
        (("--vary", "learn.lr=1,"), "write section.key=value,value"),
        (("--vary", "learn.lr=1,1"), "each of its values once"),
        (("--vary", "learn.lr=1", "--vary", "learn.lr=2"), "give each key once"),
        (("--vary", "seed=1,2"), "--vary seed: use --seeds"),
        (("--vary", "learn.lr=1,2", "--vary", "model.cut=1", "--zip"), "learn.lr has 2, model.cut has 1"),
        (("--vary", "learn.lrr=1,2"), "lrr"),
        (("--vary", "learn.lr=0.1,0.2", "--rates", "0.1"), "has a learning rate of its own"),
        (("--methods", "sflam learn.method=sl"), "learn.method has an option of its own, --methods"),
    ],
)
def test_bad_lines_are_refused(cli, small, tmp_path, words, message):
    assert_refused(cli("compare", *sets(*small), *words, "--out", tmp_path / "out"), message)
    assert not list(tmp_path.glob("out/*/config.toml"))


def test_a_comparison_of_lines(cli, small, tmp_path):
    words = ("--methods", "sflam,sflam+equal", "--vary", "learn.lr=0.01,0.03", "--jobs", "1", "--json")
    more = sets(*small, "learn.rounds=1", "network.simulate=true")
    done = cli("compare", *more, *words, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    found = json.loads(done.out[-1])["methods"]
    assert list(found) == [
        f"{name} learn.lr={rate}" for name in ("sflam", "sflam+equal") for rate in (0.01, 0.03)
    ]
    assert found["sflam learn.lr=0.01"]["learning_rate"] == 0.01
    assert found["sflam learn.lr=0.01"]["accuracy"] == found["sflam+equal learn.lr=0.01"]["accuracy"]
    page = cli("report", tmp_path / "out", "--out", tmp_path / "page.html")
    assert page.code == 0, page.err
