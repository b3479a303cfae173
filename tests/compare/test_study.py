"""A study: listed before it runs, trained in shares on several machines, joined, and written as one file."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam import config
from sflam.compare.asked import ASKED, read_asked
from sflam.compare.comparison import compare, run_study
from sflam.compare.listing import StudyShare, listed
from sflam.compare.shares import join, run_share
from sflam.compare.study import Study
from sflam.compare.study_file import read_study
from sflam.errors import ConfigError, RunError
from tests.conftest import Cli, assert_refused, sets

NAMES = ("sflam", "sflam+equal", "sl", "central")


@pytest.fixture
def wanted(small: tuple[str, ...]) -> Study:
    """Four methods on two seeds, of which two learn the same."""
    job = config.load(None, [*small, "network.simulate=true", "learn.rounds=1", "learn.canonical=true"])
    return Study(job=job, methods=NAMES, seeds=2, targets=(0.05, 0.99), baseline="central")


def numbers(found: object) -> str:
    """Return all numbers of a comparison but where its runs lie."""

    def without(value: object) -> object:
        if isinstance(value, dict):
            return {key: without(inner) for key, inner in value.items() if key != "runs"}
        return [without(inner) for inner in value] if isinstance(value, list) else value

    return json.dumps(without(found), sort_keys=True)


def test_shards_joined_are_the_comparison(wanted: Study, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    taken = [
        run_share(wanted, folder, StudyShare(number, 2)) for number, folder in enumerate((first, second))
    ]
    names = [{item.task.name for item in found} for found, failures in taken if not failures]
    whole = {item.task.name for item in listed(wanted, tmp_path)}
    assert len(names) == 2 and names[0] | names[1] == whole and not names[0] & names[1] and all(names)
    joined = run_study(join([first, second], tmp_path / "all"), tmp_path / "all")
    alone = run_study(wanted, tmp_path / "alone")
    assert numbers(joined.to_dict()) == numbers(alone.to_dict())
    assert joined.to_dict()["methods"]["sl"]["against_baseline"]["accuracy"]["n"] == 2
    assert {Path(run).parent for row in joined.to_dict()["methods"].values() for run in row["runs"]} == {
        tmp_path / "all"
    }


def test_runs_that_learn_the_same_stay_in_one_share(wanted: Study, tmp_path: Path) -> None:
    for number in range(3):
        own = listed(wanted, tmp_path, StudyShare(number, 3))
        both = [item.lines for item in own if item.lines[0].startswith("sflam")]
        seeds = [item.task.job.seed for item in own if item.lines[0].startswith("sflam")]
        assert len(both) % 2 == 0 and all(seeds.count(seed) == 2 for seed in seeds)
        assert {item.state for item in own} <= {"to train", "to charge"}
    assert sum(item.state == "to charge" for item in listed(wanted, tmp_path)) == 2


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 9), st.integers(1, 4))
def test_every_run_is_in_exactly_one_share(of: int, seeds: int) -> None:
    job = config.load(None, ["network.simulate=true"])
    study = Study(job=job, methods=("sflam", "sflam+equal", "sl"), seeds=seeds)
    shares = [[item.task.name for item in listed(study, Path("none"), StudyShare(n, of))] for n in range(of)]
    assert sorted(name for own in shares for name in own) == sorted(
        item.task.name for item in listed(study, Path("none"))
    )


def test_listing_trains_nothing(cli: Cli, small: tuple[str, ...], tmp_path: Path) -> None:
    words = [*sets(*small, "learn.rounds=1"), "--methods", "sl,central", "--out", tmp_path / "out"]
    done = cli("compare", *words, "--list", "--json")
    assert done.code == 0 and not (tmp_path / "out").exists()
    runs = json.loads(done.out[-1])["runs"]
    assert [(run["lines"], run["there"], run["state"]) for run in runs] == [
        (["sl"], False, "to train"),
        (["central"], False, "to train"),
    ]
    assert all(run["run"].endswith(run["digest"]) and len(run["digest"]) == 12 for run in runs)
    trained = cli("compare", *words, "--only", "central", "--jobs", 1, "--json")
    assert trained.code == 0, trained.err
    assert [run["state"] for run in json.loads(trained.out[-1])["runs"]] == ["finished"]
    again = json.loads(cli("compare", *words, "--list", "--json").out[-1])["runs"]
    assert [run["there"] for run in again] == [False, True]


def test_a_study_file_is_what_the_options_say(cli: Cli, small: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(config.to_toml(config.load(None, [*small, "learn.rounds=9"])))
    (tmp_path / "study.toml").write_text(
        'job = "job.toml"\nset = ["learn.rounds=1"]\nmethods = ["sl", "central"]\nseeds = 2\n'
        'targets = [0.9, 0.2]\nbaseline = "central learn.lr=0.001"\n'
        '[vary]\n"learn.lr" = [0.001, 0.002]\n[sweeps]\nalpha = [1]\n'
    )
    study = read_study(tmp_path / "study.toml")
    assert study.methods == tuple(
        f"{name} learn.lr={rate}" for name in ("sl", "central") for rate in (0.001, 0.002)
    )
    assert (study.seeds, study.targets, study.sweeps) == (2, (0.9, 0.2), {"alpha": (1.0,)})
    assert study.job.learn.rounds == 1 and study.job.network.simulate
    done = cli("study", tmp_path / "study.toml", "--list", "--json", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    asked = [
        "--methods",
        "sl,central",
        "--seeds",
        2,
        "--vary",
        "learn.lr=0.001,0.002",
        "--alphas",
        1,
        "--list",
    ]
    same = cli(
        "compare", tmp_path / "job.toml", "--set", "learn.rounds=1", *asked, "--json", "--out", tmp_path
    )
    assert json.loads(done.out[-1]) == json.loads(same.out[-1])


def test_a_study_file_may_hold_its_job(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(
        'zip = true\n[job.learn]\nrounds = 3\n[vary]\nlearn.lr = [1, 2]\nfleet.policy = ["loss", "gain"]\n'
    )
    study = read_study(path)
    assert study.job.learn.rounds == 3 and study.methods[0] == "sflam learn.lr=1 fleet.policy=loss"
    assert len(study.methods) == 2 * 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds = 1.5", "seeds is 1.5; give a whole number"),
        ("metods = []", "metods"),
        ("targets = [2]", "--target is 2; give an accuracy"),
        ("targets = [0.5, 0.5]", "give each once"),
        ('baseline = "fedlora"\nmethods = ["sl"]', "--baseline is 'fedlora', which is not compared"),
        ("seeds = ", "not valid TOML"),
        ('job = "none.toml"', "none.toml"),
        ("[job.learn]\nrouns = 3", "rouns"),
        ('[vary]\n"learn.lr" = 3', "vary is"),
        ("[sweeps]\nbit = [3]", "bit"),
    ],
)
def test_a_wrong_study_file_is_refused(cli: Cli, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "study.toml").write_text(text)
    assert_refused(cli("study", tmp_path / "study.toml", "--list", "--out", tmp_path / "out"), message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--shard", "2/2"), "--shard is '2/2'; give i/n with i from 0 to n - 1"),
        (("--shard", "x"), "--shard is 'x'"),
        (("--shard", "8/9"), "--shard 8/9 holds no run"),
        (("--only", "nothing"), "--only 'nothing' is in the name of none of 2 runs"),
        (("--only", " "), "--only is empty"),
        (("--shard", "0/2", "--rates", "0.1,0.2"), "cannot go with --rates"),
        (("--join", "a", "--seeds", "2"), "--join takes what the folders were asked for"),
    ],
)
def test_a_wrong_share_is_refused(
    cli: Cli, small: tuple[str, ...], tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    more = ("--methods", "sl,central", "--out", tmp_path / "out")
    assert_refused(cli("compare", *sets(*small), *more, *words), message)


def test_what_cannot_be_joined_is_refused(cli: Cli, wanted: Study, tmp_path: Path) -> None:
    one = replace(wanted, methods=("sl", "central"), seeds=1, baseline="")
    first, second = tmp_path / "first", tmp_path / "second"
    run_share(one, first, StudyShare(0, 2))
    run_share(
        replace(one, job=replace(one.job, learn=replace(one.job.learn, lr=0.5))), second, StudyShare(1, 2)
    )
    named = r"learn.lr is 0.0 in .*first, 0.5 in .*second; join folders of one"
    with pytest.raises(ConfigError, match=named):
        join([first, second], tmp_path / "all")
    shutil.copytree(first, tmp_path / "copy")
    with pytest.raises(RunError, match="1 of 2 runs are in none of these folders: central-0-"):
        join([first, tmp_path / "copy"], tmp_path / "all")
    with pytest.raises(ConfigError, match="--join is given once"):
        join([first], tmp_path / "all")
    (tmp_path / "copy" / ASKED).write_text("{}")
    with pytest.raises(RunError, match=r"asked\.json is damaged"):
        join([first, tmp_path / "copy"], tmp_path / "all")
    done = cli("compare", "--join", first, "--join", tmp_path / "none", "--out", tmp_path / "all")
    assert_refused(done, r"holds no comparison \(asked\.json\)")
    assert not (tmp_path / "all").exists()


def test_folders_are_joined_where_their_data_is_not(cli: Cli, small: tuple[str, ...], tmp_path: Path) -> None:
    """The data lay elsewhere on each machine, and is gone on the one that joins."""
    named = dict(text.split("=", 1) for text in small)
    for number, name in enumerate(("first", "second")):
        data = tmp_path / f"data-{name}.npz"
        shutil.copy(named["data.name"], data)
        keys = sets(*small, "learn.rounds=1", f"data.name={data}")
        words = ["--methods", "sl,central", "--shard", f"{number}/2", "--jobs", 1, "--out", tmp_path / name]
        done = cli("compare", *keys, *words)
        assert done.code == 0, done.err
        data.unlink()
    words = ["--join", tmp_path / "first", "--join", tmp_path / "second", "--out", tmp_path / "all"]
    done = cli("compare", *words, "--json")
    assert done.code == 0, done.err
    assert set(json.loads(done.out[-1])["methods"]) == {"sl", "central"}
    assert read_asked(tmp_path / "all").contents
    assert cli("report", tmp_path / "all", "--out", tmp_path / "page.html").code == 0


def test_targets_and_a_baseline(cli: Cli, small: tuple[str, ...], tmp_path: Path) -> None:
    keys = sets(*small, "learn.rounds=2", "learn.evaluate_every=1")
    words = ["--methods", "sflam,sl", "--seeds", 2, "--target", 0.05, "--target", 0.999, "--jobs", 1]
    done = cli("compare", *keys, *words, "--baseline", "sl", "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out[-1])
    assert [target["accuracy"] for target in found["targets"]] == [0.05, 0.999]
    row = found["methods"]["sflam"]
    assert row["intervals"]["accuracy"]["n"] == 2 and row["seeds"] == 2
    assert row["intervals"]["accuracy"]["low"] <= row["accuracy"] <= row["intervals"]["accuracy"]["high"]
    never = row["to_targets"][1]
    assert never["reached"] == 0 and never["virtual_s"] is None
    assert never["at_least"]["virtual_s"] == pytest.approx(row["virtual_s"])
    less = row["against_baseline"]
    assert less["accuracy"]["mean"] == pytest.approx(row["accuracy"] - found["methods"]["sl"]["accuracy"])
    shown = " ".join(" ".join(done.err).split())
    assert "0 of 2" in shown and "less sl, seed by seed" in shown and "Student t, n = 2 seeds" in shown
    assert cli("report", tmp_path / "out", "--out", tmp_path / "page.html").code == 0
    page = " ".join((tmp_path / "page.html").read_text().split())
    assert "Against sl" in page and "0 of 2" in page and "--baseline sl" in page.replace("\\ ", "")


def test_central_does_not_set_the_only_target(small: tuple[str, ...], tmp_path: Path) -> None:
    job = config.load(None, [*small, "learn.rounds=1", "network.simulate=true"])
    found = compare(job, tmp_path, ("sl", "central"))
    best = max(found.methods.values(), key=lambda item: item.mean("accuracy") or 0)
    assert len(found.targets) == (2 if best.name == "central" else 1)


def test_the_page_on_studies_runs_as_written(
    cli: Cli, small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its study file, over a tiny job, and its commands for two machines."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "study.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    text, _ = (text for language, text in blocks if language == "text")
    short = text.replace("learn.rounds=20", "learn.rounds=1")
    monkeypatch.chdir(tmp_path)
    Path("study.toml").write_text(short)
    Path("job.toml").write_text(config.to_toml(config.load(None, small)))
    commands = [line for language, text in blocks if language == "sh" for line in text.splitlines()]
    shown = [line for line in commands if "first" in line or line == "sflam study study.toml --list"]
    assert len(shown) == 3 and text != short
    for line in [*shown[:2], next(line for line in commands if "1/2" in line), shown[2]]:
        _, *words = shlex.split(line)
        done = cli(*words, *(["--jobs", 1] if "--shard" in words else []))
        assert done.code == 0, (line, done.err)
    found = json.loads((tmp_path / "runs" / "all" / "comparison.json").read_text())
    assert len(found["methods"]) == 6 and found["baseline"] == "central network.bandwidth_mhz=5"
