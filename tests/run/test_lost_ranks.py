"""A rank that is lost ends all others with one clear error, and the run goes on from its folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

import sflam
from sflam.run.start import resume
from tests.conftest import sets

SETTINGS = (
    "learn.rounds=40",
    "learn.canonical=true",
    "learn.state=keep",
    "fleet.devices=4",
    "quant.bits_up=4",
)
LINUX = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for child processes in /proc")
PATIENCE_S = 120


def sflam_train(*words, environment=None):
    return subprocess.Popen(
        [sys.executable, "-m", "sflam", "train", *map(str, words)],
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def rounds_done(folder):
    history = folder / "history.jsonl"
    return max(0, len(history.read_text().splitlines()) - 1) if history.exists() else 0


def wait_for_rounds(process, folder, rounds):
    until = time.monotonic() + PATIENCE_S
    while rounds_done(folder) < rounds:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def errors_of(err):
    return [line for line in err.splitlines() if not line.startswith(("note: ", "round ", "loading"))]


def adapters(folder):
    found = load_file(folder / "adapter" / "adapter_model.safetensors")
    return {name: tensor.tolist() for name, tensor in found.items()}


@pytest.fixture(scope="module")
def settings(room):
    small = (
        f"model.name={room / 'vit'}",
        f"data.name={room / 'digits.npz'}",
        "model.rank=2",
        "learn.batch=4",
    )
    return (*small, "learn.device=cpu", *SETTINGS)


@LINUX
@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_run_which_goes_on_with_any_number(settings, tmp_path):
    run = tmp_path / "run"
    process = sflam_train(*sets(*settings), "--ranks", 2, "--out", run)
    wait_for_rounds(process, run, 2)
    [other] = children(process)
    os.kill(other, signal.SIGKILL)
    _, err = process.communicate(timeout=PATIENCE_S)
    done = rounds_done(run)
    assert process.returncode == 2
    [line] = errors_of(err)
    assert re.fullmatch(
        rf"sflam: rank 1 of 2 .*; {done} rounds are kept, go on with: .*--resume {run} .*", line
    )

    resumed = sflam_train("--resume", run, "--ranks", 3)  # then on three, which are stopped by the user
    wait_for_rounds(resumed, run, done + 2)
    others = children(resumed)
    for pid in (resumed.pid, *others):  # as a terminal does
        os.kill(pid, signal.SIGINT)
    _, err = resumed.communicate(timeout=PATIENCE_S)
    assert resumed.returncode == 130 and errors_of(err) == [
        f"stopped; go on with: sflam train --resume {run}"
    ]
    assert not any(Path(f"/proc/{pid}").exists() for pid in others)

    last = resume(run)  # and on one
    list(last.rounds())
    last.finish()
    sflam.train(sflam.load(None, settings), tmp_path / "alone")
    assert adapters(run) == adapters(tmp_path / "alone")


@LINUX
@pytest.mark.slow
def test_the_others_end_when_the_first_is_killed(settings, tmp_path):
    run = tmp_path / "run"
    process = sflam_train(*sets(*settings), "--ranks", 3, "--out", run)
    wait_for_rounds(process, run, 1)
    others = children(process)
    assert len(others) == 2
    process.kill()
    _, err = process.communicate(timeout=PATIENCE_S)  # until the others have closed their ends, too
    [line] = errors_of(err)
    assert re.fullmatch(r"sflam: rank 0 of 3 ended without a word; go on with sflam train --resume .*", line)


@LINUX
@pytest.mark.slow
def test_torchrun_starts_all_again_where_the_run_was(settings, tmp_path):
    run = tmp_path / "run"
    words = ["--standalone", "--nproc-per-node", "2", "--max-restarts", "1", "-m", "sflam", "train"]
    words = [*words, *sets(*settings), "--out", str(run)]
    with (tmp_path / "lines").open("w") as lines:
        command = [sys.executable, "-m", "torch.distributed.run", *words]
        process = subprocess.Popen(command, stdout=lines, stderr=subprocess.STDOUT)
    wait_for_rounds(process, run, 2)
    workers = children(process)
    assert len(workers) == 2
    os.kill(workers[-1], signal.SIGKILL)
    assert process.wait(PATIENCE_S) == 0, (tmp_path / "lines").read_text()
    assert rounds_done(run) == 40
    sflam.train(sflam.load(None, settings), tmp_path / "alone")
    assert adapters(run) == adapters(tmp_path / "alone")


@pytest.mark.slow
def test_what_ranks_cannot_train_is_refused_before_any_starts(settings, tmp_path):
    for words, reason in (
        (("learn.method=fedlora",), r"learn.method = \"fedlora\" does not go with sflam train --ranks: .*"),
        (("fleet.devices=1",), r"2 ranks are more than the devices of a round, fleet.devices = 1; .*"),
    ):
        process = sflam_train(*sets(*settings, *words), "--ranks", 2, "--out", tmp_path / "run")
        _, err = process.communicate(timeout=PATIENCE_S)
        [line] = errors_of(err)
        assert process.returncode == 2 and re.fullmatch(f"sflam: {reason}", line)
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_diverges_at_another_rank_is_reported_by_the_first(settings, tmp_path):
    process = sflam_train(
        *sets(*settings, "learn.canonical=false", "learn.lr=1e30", "learn.optimizer=sgd", "learn.clip=0"),
        *("--ranks", 2, "--out", tmp_path / "run"),
    )
    _, err = process.communicate(timeout=PATIENCE_S)
    [line] = errors_of(err)
    assert process.returncode == 2 and re.match(r"sflam: round 1 of 40 diverged.*: .*; lower learn.lr", line)
