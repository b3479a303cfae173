"""Methods side by side: equal samples, cached runs, means by hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sflam import config
from sflam.compare.variants import AIRLESS, AXES, variant, variants_of
from sflam.errors import ConfigError
from sflam.records import history
from tests.conftest import Cli, assert_refused, files, sets
from tests.held import held_elsewhere

METHODS = ("sflam", "sflam+equal", "sl", "fedlora", "fedavg", "local", "central")
PICTURES = {"comparison.png", "sweeps.png"}


def test_a_comparison_is_fair_cached_and_goes_on(cli: Cli, small: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    words = [*sets(*small, "learn.rounds=1", "learn.local_steps=0"), "--out", folder, "--json", "--jobs", 1]
    first = cli("compare", *words, "--methods", ",".join(METHODS))
    assert first.code == 0 and sum(line.endswith(": started") for line in first.err) == len(METHODS)
    assert len(first.out) == 1
    result = json.loads(first.out[-1])
    found = result["methods"]
    assert tuple(found) == METHODS and result["seeds"] == 1 and 0 < result["target"]["accuracy"] <= 1
    samples = set()
    for method in METHODS:
        row = found[method]
        airless = method in AIRLESS
        assert (row["virtual_s"] is None) == (row["energy_j"] is None) == airless
        assert 0 <= row["accuracy"] <= 1 and row["accuracy_spread"] is None and row["rounds"] == 1
        assert (row["device_memory_bytes"] is None) == (row["device_flop"] is None) == (method == "central")
        samples |= {record.samples for record in history.read(Path(row["runs"][0]) / "history.jsonl")[1]}
    assert len(samples) == 1
    assert found["local"]["bytes_up"] == found["central"]["bytes_up"] == 0 < found["fedlora"]["bytes_up"]
    assert found["sflam"]["device_flop"] < found["fedlora"]["device_flop"] == found["local"]["device_flop"]
    assert found["fedlora"]["virtual_s"] < found["fedavg"]["virtual_s"]
    assert found["sflam"]["device_flop"] == found["sflam+equal"]["device_flop"]
    before = files(folder)
    again = cli("compare", *words, "--methods", ",".join(METHODS))
    assert json.loads(again.out[-1]) == result
    assert sum(line.endswith(": finished") for line in again.err) == len(METHODS)
    after = files(folder)
    assert {k: v for k, v in after.items() if k not in PICTURES} == {
        k: v for k, v in before.items() if k not in PICTURES
    }
    (Path(found["sl"]["runs"][0]) / "result.json").unlink()
    stopped = cli("compare", *words, "--methods", "sl")
    assert [line for line in stopped.err if line.endswith(": resumed")] != []
    other = cli("compare", *words, "--methods", "sl", "--set", "learn.lr=0.001")
    assert any(line.endswith(": started") for line in other.err)


def test_sweeps_share_runs_with_each_other_and_are_drawn(
    cli: Cli, small: tuple[str, ...], tmp_path: Path, rendered: None
) -> None:
    words = [*sets(*small, "learn.rounds=1"), "--out", tmp_path, "--jobs", 1, "--target", 0.05, "--json"]
    swept = ["--bits", "2,8", "--weights", "0.5,0.9", "--alphas", "0.5"]
    done = cli("compare", *words, "--methods", "sflam,central", *swept)
    assert done.code == 0, done.err
    result = json.loads(done.out[-1])
    assert (
        sum(line.endswith(": started") for line in done.err) == 4
    )  # both, bits 2, weight 0.9: the rest are these
    assert [point["value"] for point in result["sweeps"]["bits"]["sflam"]] == [2.0, 8.0]
    assert set(result["sweeps"]["alpha"]) == {"sflam", "central"}
    assert set(result["sweeps"]["weight"]) == set(result["sweeps"]["bits"]) == {"sflam"}
    two, eight = result["sweeps"]["bits"]["sflam"]
    assert two["bytes_up"] < eight["bytes_up"] == result["methods"]["sflam"]["bytes_up"]
    assert (
        eight["runs"] == result["methods"]["sflam"]["runs"] == result["sweeps"]["alpha"]["sflam"][0]["runs"]
    )
    assert result["target"] == {"accuracy": 0.05, "rule": "as given"} == result["targets"][0]
    reached = result["methods"]["sflam"]["to_target"]
    assert reached["reached"] == 0 or (reached["rounds"] == 1 and reached["virtual_s"] > 0)
    assert all((tmp_path / name).stat().st_size > 10_000 for name in PICTURES)


def test_methods_for_several_servers_are_allocators(cli: Cli, small: tuple[str, ...], tmp_path: Path) -> None:
    """Each variant plans who is where by its own method, before the first round or in every one."""
    square = (
        "network.scenario=square",
        "network.servers=2",
        "network.server_flops_per_cycle=64",
        "learn.rounds=1",
    )
    planned = ["sflam+dual", "sflam+equal", "sflam+all-local"]
    for plan, names, sweep in (
        ("", [*planned, "central"], ["--weights", "0.9"]),
        ("computed", planned, []),
    ):
        words = [
            *sets(*small, *square, f"fleet.plan={plan}"),
            "--out",
            tmp_path / f"out{plan}",
            "--jobs",
            1,
            "--json",
        ]
        done = cli("compare", *words, "--methods", ",".join(names), *sweep)
        assert done.code == 0, done.err
        result = json.loads(done.out[-1])
        found = result["methods"]
        assert list(found) == names and [found[name]["virtual_s"] for name in names[3:]] == [None] * len(
            names[3:]
        )
        assert {axis: set(lines) for axis, lines in result["sweeps"].items()} == (
            {"weight": set(planned)} if sweep else {}
        )
        charges = {
            name: history.read(Path(found[name]["runs"][0]) / "history.jsonl")[1][0].charge
            for name in planned
        }
        assert all(
            charge is not None and charge.method == name.split("+")[1] for name, charge in charges.items()
        )
        assert set(charges["sflam+all-local"].servers) == {-1} and set(charges["sflam+equal"].servers) <= {
            0,
            1,
        }
        assert charges["sflam+dual"].objective <= min(charge.objective for charge in charges.values()) * (
            1 + 1e-9
        )
        memory = {name: found[name]["device_memory_bytes"] for name in planned}
        assert memory["sflam+all-local"] == max(memory.values()) > memory["sflam+equal"]
        assert found["sflam+equal"]["energy_j"] > 0 and found["sflam+all-local"]["bytes_up"] > 0


WAIT = 240.0
"""Seconds after which a hung test is given up; nothing is asserted of time."""


@pytest.mark.slow
def test_kill_9_in_the_middle_and_again(small: tuple[str, ...], tmp_path: Path) -> None:
    """Two at once, killed when one is finished and another half-done: that one resumes, the first is left alone."""
    settings = sets(*small, "learn.rounds=40", "learn.canonical=true", "learn.evaluate_every=0")
    words = [sys.executable, "-c", "from sflam.cli import main; main()", "compare", *settings]
    words += ["--methods", "central,sflam,sl,fedlora", "--jobs", "2", "--json", "--out"]
    whole = subprocess.run([*words, tmp_path / "whole"], capture_output=True, text=True, check=True)
    folder = tmp_path / "killed"
    process = subprocess.Popen([*words, folder], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if ": done" in line:
            break
    until = time.monotonic() + WAIT
    while not any(half_done(folder)) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    finished = {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/result.json")}
    assert finished and len(finished) < 4
    again = subprocess.run([*words, folder], capture_output=True, text=True, check=True)
    reported = {line.split(":")[0]: line.split(": ")[1] for line in again.stderr.splitlines() if ": " in line}
    errors = again.stderr.splitlines()
    assert {line.removesuffix(": finished") for line in errors if line.endswith(": finished")} >= set(
        finished
    )
    assert any(line.endswith(": resumed") for line in errors), reported
    for name, written in finished.items():
        assert (folder / name / "result.json").stat().st_mtime_ns == written
    first, other = (json.loads(done.stdout)["methods"] for done in (whole, again))
    for name in first:
        assert {k: v for k, v in first[name].items() if k != "runs"} == {
            k: v for k, v in other[name].items() if k != "runs"
        }


def half_done(folder: Path) -> list[str]:
    """Return the runs that have done a round, and not all."""
    return [
        path.parent.name
        for path in folder.glob("*/history.jsonl")
        if not (path.parent / "result.json").exists() and path.read_bytes().count(b"\n") > 2
    ]


def test_settings_that_do_not_go_together_are_refused_before_anything_runs(
    cli: Cli, small: tuple[str, ...], tmp_path: Path
) -> None:
    wrong = sets(*small, "learn.aggregation=residual")
    done = cli("compare", *wrong, "--methods", "sflam,fedlora", "--bits", "2,4", "--out", tmp_path / "out")
    assert_refused(
        done, 'fedlora: learn.method = "fedlora" and learn.aggregation = "residual" do not go together'
    )
    assert not (tmp_path / "out").exists()


def test_what_goes_wrong_in_another_process_is_one_line(
    cli: Cli, small: tuple[str, ...], tmp_path: Path
) -> None:
    wrong = sets(*small, "data.name=nowhere.npz")
    done = cli("compare", *wrong, "--methods", "sflam,sl", "--jobs", 2, "--out", tmp_path)
    errors = [line for line in done.err if not line.endswith(": failed")]
    assert_refused(replace(done, err=errors), r"runs sflam-0-\w+, sl-0-\w+: .*nowhere.npz")


def test_a_folder_belongs_to_one_comparison(
    cli: Cli, small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sflam.compare import comparison

    monkeypatch.setattr(comparison, "PATIENCE_S", 0.0)
    with held_elsewhere(tmp_path):
        done = cli("compare", *sets(*small), "--methods", "sl", "--out", tmp_path)
    assert_refused(done, "another comparison is writing to")


def test_runs_that_end_early_are_compared(cli: Cli, small: tuple[str, ...], tmp_path: Path) -> None:
    """A rate that moves nothing ends a run after two rounds of nine; the other axis of the grid runs on or not."""
    keys = sets(*small, "learn.rounds=9", "learn.stop_after=1", "learn.canonical=true")
    words = [*keys, "--out", tmp_path, "--json", "--jobs", 1, "--methods", "sflam,central", "--seeds", 2]
    done = cli("compare", *words, "--rates", "1e-30,0.01")
    assert done.code == 0, done.err
    result = json.loads(done.out[-1])
    for name, row in result["methods"].items():
        low, high = result["rates"]["methods"][name]
        assert json.loads((tmp_path / low["run"] / "result.json").read_text())["stopped_round"] == 2, name
        assert row["learning_rate"] == (0.01 if high["accuracy"] > low["accuracy"] else 1e-30)
        lengths = [json.loads((Path(run) / "result.json").read_text())["rounds"] for run in row["runs"]]
        assert row["rounds"] == sum(lengths) / 2
    assert cli("report", tmp_path, "--out", tmp_path / "page.html").code == 0
    page = (tmp_path / "page.html").read_text()
    assert "validation accuracy (%)" in page and "with a validation accuracy of" in page
    again = cli("compare", *words, "--rates", "1e-30,0.01")
    assert json.loads(again.out[-1]) == result and not any(": started" in line for line in again.err)


def test_a_method_changes_only_what_it_cannot_do() -> None:
    wanted = config.load(None, ["network.simulate=true", "fleet.policy=loss", "learn.lr=0.01"])
    assert variant(wanted, "sflam", 0) == wanted
    assert variant(wanted, "sflam+optimal", 0) == wanted
    assert variant(wanted, "sflam+equal", 0) == replace(wanted, plan=replace(wanted.plan, method="equal"))
    alone = variant(wanted, "central", 3)
    assert (alone.seed, alone.network.simulate, alone.fleet.policy) == (3, False, "uniform")
    assert alone.learn == replace(wanted.learn, method="central") and alone.data == wanted.data
    assert variant(wanted, "fedavg", 0).model.trainable == "full"
    planned = config.load(None, ['fleet.plan="computed"'])
    assert (
        variant(planned, "sl", 0).fleet.plan == "computed" and variant(planned, "fedlora", 0).fleet.plan == ""
    )


def test_a_sweep_moves_only_what_it_changes() -> None:
    wanted = config.load(None, ["network.simulate=true"])
    lines = variants_of(
        wanted, ["sflam", "sflam+equal", "sl", "local"], 2, dict.fromkeys(AXES, (1.0, 0.5)) | {"bits": (4,)}
    )
    moved = {axis: {line.name for line in lines if line.axis == axis} for axis in AXES}
    assert moved["bits"] == {"sflam", "sflam+equal"}
    assert moved["alpha"] == {"sflam", "sflam+equal", "sl", "local"}
    assert moved["weight"] == {"sflam", "sl"}
    assert all(len(line.jobs) == len(line.runs) == 2 for line in lines)
    with pytest.raises(ConfigError, match="--bits changes none of sl"):
        variants_of(wanted, ["sl"], 1, {"bits": (4,)})


def test_the_settings_of_a_job_make_it_again() -> None:
    planned = [
        "seed=3",
        "learn.rounds=7",
        "fleet.devices=2",
        'plan.optimize=["bits"]',
        'network.device=[{profile="phone", name="it\'s", count=2}]',
    ]
    job = config.load(None, planned)
    assert config.load(None, config.overrides(job)) == job
    assert config.overrides(config.Job()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--methods", "sflam,sl2"), "sl2"),
        (("--methods", "sl,sl"), "name each method once"),
        (("--methods", "sflam+best"), "unknown allocator 'best'"),
        (("--methods", "sflam+dual"), "unknown allocator 'dual'"),
        (
            ("--methods", "sflam+bcd", "--set", "network.scenario=square", "--set", "network.servers=2"),
            "unknown allocator 'bcd'",
        ),
        (("--methods", "central+equal"), "central uses no network; write central"),
        (("--methods", "sl+equal", "--set", "network.simulate=false"), "network.simulate is false"),
        (("--seeds", "0"), "at least one is needed"),
        (("--jobs", "0"), "--jobs is 0"),
        (("--target", "90"), "--target is 90"),
        (("--bits", "2,x"), "--bits holds 'x'"),
        (("--bits", "2.5"), "whole numbers"),
        (("--bits", "40"), "must be between 1 and 16"),
        (("--alphas", "0.5,0.5"), "give each value once"),
        (("--weights", "1.5"), "latency_weight is 1.5"),
        (("--bits", "4", "--methods", "sl"), "--bits changes none of sl"),
    ],
)
def test_bad_words_are_reported(cli: Cli, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    done = cli("compare", *words, "--out", tmp_path / "out")
    assert done.code == 2 and done.out == [] and any(message in line for line in done.err), done.err
    assert_refused(done, *([""] * len(done.err)))
    assert not list(tmp_path.glob("out/*-*"))
