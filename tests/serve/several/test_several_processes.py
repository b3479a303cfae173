"""Several jobs from the command line, over TLS: killed and gone on with, stopped, one of them failing."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest
import torch

from sflam import train
from sflam.serve import serve
from sflam.serve.roster import Roster
from tests.serve.network import Process, network
from tests.serve.several.both import OTHER, SHORT, adapters_of, job_of

pytestmark = pytest.mark.usefixtures("one_thread")
DROPS = ("learn.rounds=3", "learn.local_steps=6", "model.dropout=0.2")
"""Masks are drawn from torch's one generator, by the server's half of either job."""


def written(folder, **jobs):
    """Write job files; return their paths."""
    paths = []
    for name, settings in jobs.items():
        path = folder / f"{name}.toml"
        job = {}
        for setting in (*SHORT, *settings):
            key, _, value = setting.partition("=")
            job[key] = value if re.fullmatch(r"[\d.]+|true|false", value) else json.dumps(value)
        path.write_text("".join(f"{key} = {value}\n" for key, value in job.items()))
        paths.append(path)
    return paths


def device(net, name, number):
    """Start a device of a job, which goes on where it was."""
    token = net.folder / f"{name}-{number}.token"
    if not token.exists():
        token.write_text(Roster(net.folder / f"devices-{name}.json").enrol(f"device-{number}"))
    one = Process(
        net.folder, "join", f"https://127.0.0.1:{net.port}/jobs/{name}", "--token-file", token, "--ca",
        net.folder / "certs/ca.pem", "--folder", net.folder / f"{name}-{number}", "--device", "cpu", "--share",
    )  # fmt: skip
    net.started.append(one)
    return one


def test_both_are_killed_and_gone_on_with_each_as_alone(tmp_path):
    jobs = {"one": ("seed=3", *DROPS), "other": (*OTHER, *DROPS)}
    files = written(tmp_path, **jobs)
    with network(tmp_path, 0) as net:
        server = net.serve(*files, "--out", tmp_path / "runs")
        devices = [device(net, name, number) for name in jobs for number in (0, 1)]
        server.wait_for(r"^(one|other): round 1/3: loss", 120)
        server.kill()
        server.wait(20)
        again = net.serve("--resume", tmp_path / "runs")
        assert again.wait(240) == 0, again.lines[-12:]
        assert [one.wait(60) for one in devices] == [0] * 4
    for name, settings in jobs.items():
        train(job_of(*settings), tmp_path / f"{name}-alone")
        found, wanted = adapters_of(tmp_path / "runs" / name), adapters_of(tmp_path / f"{name}-alone")
        assert all(torch.equal(found[key], wanted[key]) for key in wanted), name


def test_a_signal_stops_all_and_one_that_fails_is_the_exit_code(tmp_path):
    files = written(tmp_path, good=(), bad=("seed=3",))
    with network(tmp_path, 0) as net:
        server = net.serve(*files, "--out", tmp_path / "runs")
        server.wait_for(
            rf"^bad: devices join https://127.0.0.1:{net.port}/jobs/bad, roster .*devices-bad.json"
        )
        server.wait_for(r"^bad: round 1: waiting for devices 0, 1")
        server.kill(signal.SIGTERM)
        assert server.wait(60) == 130
        assert server.lines[-1] == f"go on with: sflam serve --resume {tmp_path / 'runs'}"
        (tmp_path / "runs/bad/served/attempt").write_text("x")
        again = net.serve("--resume", tmp_path / "runs")
        devices = {name: [device(net, name, number) for number in (0, 1)] for name in ("good", "bad")}
        assert again.wait(240) == 2, again.lines[-12:]
        assert [one.wait(60) for one in devices["good"]] == [0, 0]
        problems = [line for line in again.lines if line.startswith("sflam: ")]
        assert len(problems) == 1 and problems[0].startswith("sflam: bad: ")
        assert "attempt cannot be used" in problems[0]
    assert (tmp_path / "runs/good/result.json").is_file() and not (tmp_path / "runs/bad/result.json").exists()


def signalled_after_the_first():
    """Have this process be asked to end as soon as the first of its jobs is loaded."""
    known = serve.start

    def start(*arguments, **options):
        served = known(*arguments, **options)
        os.kill(os.getpid(), signal.SIGTERM)
        return served

    serve.start = start


def test_a_signal_while_jobs_are_loaded_leaves_nothing(tmp_path):
    files = written(tmp_path, one=(), other=("seed=3",))
    server = Process(
        tmp_path, "serve", *files, "--out", tmp_path / "runs", "--port", 0, "--insecure",
        prepare=signalled_after_the_first,
    )  # fmt: skip
    assert server.wait(60) == 130, server.lines
    assert not (tmp_path / "runs").exists(), server.lines


def test_a_signal_as_soon_as_one_job_listens_says_how_to_go_on(tmp_path):
    with network(tmp_path, 0) as net:
        server = net.serve(*written(tmp_path, one=()), "--out", tmp_path / "run")
        server.wait_for("^listening on")
        server.kill(signal.SIGTERM)
        assert server.wait(60) == 130, server.lines
        assert server.lines[-1].endswith(f"go on with: sflam serve --resume {tmp_path / 'run'}")
