"""One grid of learning rates for all methods, and runs that fail without stopping the others."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from sflam import config
from sflam.compare import running
from sflam.compare.comparison import compare
from sflam.compare.rates import RateGrid, Tried, best, expect_rates
from sflam.compare.running import failure_lines
from sflam.compare.study import Study
from sflam.data.settings import VALIDATION
from sflam.errors import ConfigError, ModelError, RunError
from sflam.learn.methods import METHODS
from sflam.records.saved import SAVED
from tests.conftest import Cli, CommandOutput, assert_refused, files, sets

TOO_LARGE = 1e30


def heard(done: CommandOutput, what: str) -> list[str]:
    """Return the runs with this progress line."""
    return [line.partition(":")[0] for line in done.err if line.partition(": ")[2].partition(",")[0] == what]


def tried(rate: float, accuracy: float, loss: float = 1.0, *, language: bool = False) -> Tried:
    # The test scores say the opposite: they have no part in it.
    test = {"accuracy": 1 - accuracy, "loss": -loss}
    found = {"validation_accuracy": accuracy, "validation_loss": loss}
    result = test | found | {"perplexity": math.exp(loss) if language else None}
    return Tried(rate=rate, run=f"run-{rate:g}", result=result)


def test_the_best_rate_by_hand() -> None:
    assert best([tried(0.001, 0.5), tried(0.003, 0.7), tried(0.01, 0.6)]) == 0.003
    assert best([tried(0.001, 0.5), tried(0.003, 0.7), tried(0.01, 0.7)]) == 0.003  # of equals the smaller
    language = [tried(0.001, 0.9, 2.0, language=True), tried(0.003, 0.5, 1.0, language=True)]
    assert best(language) == 0.003
    assert best([tried(0.001, 0.5, math.nan, language=True), *language[:1]]) == 0.001
    lost = Tried(rate=0.1, run="lost", why="round 1 diverged; lower it", diverged=True)
    failed = Tried(rate=0.1, run="failed", why="no room on the disk")
    assert best([tried(0.001, 0.5), lost]) == 0.001
    assert best([lost]) is None
    assert best([tried(0.001, 0.5), failed]) is None  # the one that failed might have been the best


def test_a_grid_says_what_is_lost_and_who_is_at_an_end() -> None:
    lost = Tried(rate=0.1, run="lost", why="round 1 diverged", diverged=True)
    grid = RateGrid(
        seed=3,
        tried={
            "middle": (tried(0.001, 0.5), tried(0.01, 0.6), lost),
            "low": (tried(0.001, 0.5), tried(0.01, 0.4), tried(0.1, 0.4)),
            "never": (Tried(rate=0.001, run="a", why="w", diverged=True),) * 3,
        },
    )
    assert grid.winners == {"middle": 0.01, "low": 0.001} and grid.rates == (0.001, 0.01, 0.1)
    assert grid.at_an_end == {"low": 0.001} and [name for name, _ in grid.lost] == ["middle"]
    result = grid.to_dict()
    assert (result["by"], result["seed"], result["grid"]) == ("accuracy", 3, [0.001, 0.01, 0.1])
    assert result["methods"]["middle"][2] == {
        "learning_rate": 0.1,
        "accuracy": None,
        "loss": None,
        "run": "lost",
        "diverged": True,
        "why": "round 1 diverged",
    }
    grid = RateGrid(seed=0, tried={"a": (tried(0.01, 0.5),)})
    assert grid.at_an_end == {}


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_every_method_has_the_best_rate_of_one_grid(
    cli: Cli, small: tuple[str, ...], tmp_path: Path, jobs: int
) -> None:
    settings = sets(*small, "learn.rounds=1", "learn.canonical=true")
    words = [*settings, "--out", tmp_path, "--json", "--jobs", jobs, "--methods", "sflam,central"]
    words += ["--seeds", 2, "--alphas", "0.3", "--rates", f"{TOO_LARGE:g},1e-6,0.02"]
    done = cli("compare", *words)
    assert done.code == 0, done.err
    result = json.loads(done.out[-1])
    grid = result["rates"]
    assert (grid["grid"], grid["seed"], grid["by"]) == ([1e-6, 0.02, TOO_LARGE], 0, "accuracy")
    assert grid["part"] == "validation"
    for name in ("sflam", "central"):
        low, high, lost = grid["methods"][name]
        assert lost["diverged"] and lost["accuracy"] is None and "diverged" in lost["why"]
        row = result["methods"][name]
        assert row["learning_rate"] == max((low, high), key=lambda item: item["accuracy"])["learning_rate"]
        chosen = low if row["learning_rate"] == low["learning_rate"] else high
        assert Path(row["runs"][0]).name == chosen["run"] and len(row["runs"]) == 2
        for run in (*row["runs"], *result["sweeps"]["alpha"][name][0]["runs"]):
            job = config.load(Path(run) / "config.toml")
            assert job.learn.lr == row["learning_rate"] and job.data.validation == VALIDATION
    # 2 methods x (3 rates on one seed, the other seed, 2 seeds of the sweep)
    assert len(heard(done, "started")) == 12 and len(heard(done, "diverged")) == 2
    assert (
        sum(line.startswith("note: ") and " loses at rate 1e+30: round 1" in line for line in done.err) == 2
    )
    assert result["failed"] == {}
    kept = json.loads((tmp_path / SAVED).read_text())
    assert kept["methods"] == result["methods"] and kept["rates"] == grid
    before = files(tmp_path)
    again = cli("compare", *words)
    assert json.loads(again.out[-1]) == result and heard(again, "started") == heard(again, "resumed") == []
    assert len(heard(again, "finished")) == 10 and len(heard(again, "diverged")) == 2
    after = files(tmp_path)
    assert {k for k in after if after[k] != before.get(k)} <= {"comparison.png", "sweeps.png"}


def test_without_a_grid_the_rate_is_the_job_s_own(small: tuple[str, ...], tmp_path: Path) -> None:
    wanted = config.load(None, [*small, "learn.rounds=1", "learn.lr=0.002"])
    result = compare(wanted, tmp_path, ["central"]).to_dict()
    assert result["methods"]["central"]["learning_rate"] == 0.002 and result["rates"] is None


def test_runs_are_counted_beforehand(small: tuple[str, ...]) -> None:
    wanted = config.load(None, [*small, "network.simulate=true", "quant.bits_up=4", "quant.bits_down=4"])
    both = Study(job=wanted, methods=("sflam", "central"), seeds=3)
    assert both.count() == 6
    assert replace(both, rates=(0.1, 0.2, 0.3)).count() == 2 * (3 + 2)
    assert replace(both, seeds=1, sweeps={"bits": (2, 4)}, rates=(0.1, 0.2)).count() == 4 + 1


def test_a_run_that_diverges_takes_only_its_method_out(
    cli: Cli, small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every rate of one method is lost, another has a run that fails otherwise; the third is reported."""
    real = running.run_here

    def broken(task: running.Waiting, on_event: running.OnEvent) -> None:
        if task.job.learn.method == "sl":
            raise ModelError("it is\nbroken")
        real(task, on_event)

    monkeypatch.setattr(running, "run_here", broken)
    words = [*sets(*small, "learn.rounds=1"), "--out", tmp_path, "--jobs", 1, "--methods", "sl,central"]
    done = cli("compare", *words, "--seeds", 2, "--json")
    assert done.code == 1 and len(done.out) == 1
    result = json.loads(done.out[-1])
    assert set(result["methods"]) == {"central"} and list(result["failed"].values()) == ["it is broken"] * 2
    errors = [line for line in done.err if line.startswith("sflam: ")]
    assert len(errors) == 2 and "runs sl-0-" in errors[0] and errors[0].endswith(": it is broken")
    assert "2 of 4 runs failed; left out: sl;" in errors[1]
    assert len(heard(done, "failed")) == 2 and len(heard(done, "done")) == 2
    monkeypatch.undo()
    mended = cli("compare", *words, "--seeds", 2, "--json")
    assert mended.code == 0 and set(json.loads(mended.out[-1])["methods"]) == {"sl", "central"}


def test_where_every_rate_is_lost_nothing_is_reported_but_why(
    cli: Cli, small: tuple[str, ...], tmp_path: Path
) -> None:
    words = [*sets(*small, "learn.rounds=1"), "--out", tmp_path, "--jobs", 1, "--methods", "central"]
    done = cli("compare", *words, "--rates", f"{TOO_LARGE:g}", "--seeds", 3)
    errors = [line for line in done.err if line.startswith("sflam: ")]
    assert (done.code, done.out, len(errors)) == (2, [], 1), done.err
    assert "round 1 of 1 diverged" in errors[0] and "lower learn.lr (1e+30)" in errors[0]
    assert len(heard(done, "started")) == 1  # other seeds have no rate to run at
    (mark,) = tmp_path.glob(f"*/{running.DIVERGED}")
    assert "diverged" in mark.read_text()
    mark.unlink()
    assert len(heard(cli("compare", *words, "--rates", f"{TOO_LARGE:g}"), "resumed")) == 1
    assert mark.is_file()


def test_every_method_can_diverge_and_is_reported(small: tuple[str, ...], tmp_path: Path) -> None:
    """Whatever crosses the network or does not, it is divergence and no other failure."""
    wanted = config.load(None, [*small, "learn.rounds=1"])
    found = compare(wanted, tmp_path, list(METHODS), rates=[1e-6, TOO_LARGE])
    assert found.failed == {} and found.grid is not None
    assert [name for name, _ in found.grid.lost] == list(METHODS)


def test_equal_reasons_are_one_line() -> None:
    many = {f"run-{n}": "full" for n in range(6)} | {"other": "odd"}
    assert failure_lines(many) == ["runs run-0, run-1, run-2, run-3 and 2 more: full", "run other: odd"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_cannot_be_written_is_reported_and_the_other_is_done(
    small: tuple[str, ...], tmp_path: Path, jobs: int
) -> None:
    wanted = config.load(None, [*small, "learn.rounds=1"])
    first = compare(wanted, tmp_path / "a", ["central", "local"]).methods["local"].runs[0]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / first).write_text("in the way")
    found = compare(wanted, tmp_path / "b", ["central", "local"], jobs=jobs)
    assert set(found.methods) == {"central"} and set(found.failed) == {first}
    assert len(found.problems) == 1 and "\n" not in found.problems[0]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / first).write_text("in the way")
    with pytest.raises(RunError, match=f"run {first}: "):
        compare(wanted, tmp_path / "c", ["local"])


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ("0.1,x", "--rates holds 'x'"),
        ("", "--rates holds ''"),
        ("0.1,0", "--rates holds 0; a learning rate is a number above 0"),
        ("-0.1", "--rates holds -0.1"),
        ("nan", "--rates holds nan"),
        ("1e999", "--rates holds inf"),
        ("0.1,0.10", "give each rate once"),
    ],
)
def test_bad_rates_are_one_line(cli: Cli, tmp_path: Path, rates: str, message: str) -> None:
    assert_refused(cli("compare", "--rates", rates, "--out", tmp_path / "out"), message)
    assert not (tmp_path / "out").exists()


def test_no_rates_are_refused() -> None:
    with pytest.raises(ConfigError, match="give each rate once"):
        expect_rates([])
