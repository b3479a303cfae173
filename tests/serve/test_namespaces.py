"""Server and devices with a network stack each, and a cable between them that is pulled in the middle of a round."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import torch

from sflam.serve.certificates import make_certificates
from sflam.serve.roster import Roster
from tests.serve.network import adapters_of
from tests.serve.test_served_is_simulated import FOUR_BITS, job_of, sets, simulated

pytestmark = pytest.mark.slow
SERVER, DEVICES = f"sflam-s{os.getpid()}", f"sflam-d{os.getpid()}"


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True)


@pytest.fixture
def cable():
    """Two namespaces joined by a pair of virtual interfaces; yields a function that pulls the cable or puts it back."""
    if sys.platform != "linux" or os.geteuid() or ip("netns", "add", SERVER).returncode:
        pytest.skip("network namespaces need root, on Linux")
    try:
        ip("netns", "add", DEVICES)
        ip("-n", SERVER, "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", DEVICES)
        for name, link, address in ((SERVER, "v0", "10.77.0.1/24"), (DEVICES, "v1", "10.77.0.2/24")):
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "addr", "add", address, "dev", link)
            ip("-n", name, "link", "set", link, "up")
        yield lambda state: ip("-n", SERVER, "link", "set", "v0", state)
    finally:
        ip("netns", "del", SERVER)
        ip("netns", "del", DEVICES)


def sflam(namespace, log, *arguments):
    """Start a command in a namespace."""
    run = "from sflam.cli import main; main()"
    words = ["ip", "netns", "exec", namespace, sys.executable, "-c", run, *map(str, arguments)]
    with log.open("w") as file:
        return subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=file, env=os.environ | {"HF_HUB_OFFLINE": "1"}
        )


def wait_for(logs, text, started, seconds=120):
    """Wait for a text in the server's log; a command that has ended will never bring it."""
    until = time.monotonic() + seconds
    while text not in logs[0].read_text():
        ended = [item.poll() is not None for item in started]
        assert time.monotonic() < until and not any(ended), [log.read_text() for log in logs[: len(started)]]
        time.sleep(0.05)


def test_a_cable_pulled_for_ten_seconds(room, tmp_path, cable):
    settings = job_of(room, *FOUR_BITS, "learn.local_steps=40", "learn.rounds=2", "learn.state=keep")
    certs, roster = tmp_path / "certs", Roster(tmp_path / "devices.json")
    make_certificates(certs, ["10.77.0.1"])
    logs = [tmp_path / f"log-{name}" for name in ("server", 0, 1, 2)]
    started = []
    try:
        started.append(sflam(
            SERVER, logs[0], "serve", *sets(settings), "--out", tmp_path / "run", "--host", "10.77.0.1", "--roster",
            tmp_path / "devices.json", "--cert", certs / "server.pem", "--key", certs / "server.key",
        ))  # fmt: skip
        for device in range(3):
            (tmp_path / f"token-{device}").write_text(roster.enrol(f"device-{device}"))
        wait_for(logs, "listening on", started)
        for device in range(3):
            started.append(sflam(
                DEVICES, logs[1 + device], "join", "10.77.0.1", "--token-file", tmp_path / f"token-{device}", "--ca",
                certs / "ca.pem", "--share", "--folder", tmp_path / f"device-{device}", "--device", "cpu",
            ))  # fmt: skip
        wait_for(logs, "round 1, attempt 1", started)
        time.sleep(0.5)
        cable("down")
        time.sleep(10.0)
        assert started[0].poll() is None and "went on without" not in logs[0].read_text()
        cable("up")
        assert [item.wait(240) for item in started] == [0] * 4, [log.read_text() for log in logs]
    finally:
        for item in started:
            if item.poll() is None:
                item.kill()
                item.wait()
    found, wanted = adapters_of(tmp_path / "run"), simulated(tmp_path / "local", settings)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
