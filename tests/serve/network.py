"""Servers and devices as processes of their own, over real sockets and TLS on this machine."""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
import time
import traceback
import warnings
from contextlib import contextmanager

from sflam.learn import checkpoint
from sflam.serve.certificates import make_certificates
from sflam.serve.roster import Roster
from sflam.serve.trunks.trunk_roster import TrunkRoster

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    ["sflam.serve.serve", "sflam.serve.join", "sflam.cli"]
)  # imports are most of a short run's time


def command(arguments, errors, prepare=None):
    """Run the command line in this process, its stderr in the file ``errors``."""
    os.environ |= {"HF_HUB_OFFLINE": "1"}
    warnings.simplefilter("ignore")
    with open(errors, "w", buffering=1) as file:
        os.dup2(file.fileno(), 2)
        sys.stderr = file
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.argv = ["sflam", *arguments]
        if prepare:
            prepare()
        from sflam.__main__ import main

        try:
            main()
        except Exception:  # while the file is open: nothing else shows why a command failed
            traceback.print_exc()
            raise SystemExit(1) from None


class Process:
    """A command in an operating system process of its own, whose lines are kept."""

    def __init__(self, folder, *arguments, prepare=None):
        self.errors = folder / f"stderr-{time.monotonic_ns()}"
        self.what, self.killed = arguments[0], False
        self.process = FORKED.Process(target=command, args=([*map(str, arguments)], self.errors, prepare))
        self.process.start()

    @property
    def lines(self):
        return self.errors.read_text().splitlines() if self.errors.exists() else []

    def wait_for(self, pattern, seconds=60):
        """Return the first match of a pattern among the lines."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for line in list(self.lines):
                if found := re.search(pattern, line):
                    return found
            if not self.process.is_alive():
                break
            time.sleep(0.02)
        raise AssertionError(f"{pattern!r} not in {self.lines} (left with {self.process.exitcode})")

    def wait(self, seconds=120):
        """Return the exit code."""
        self.process.join(seconds)
        assert not self.process.is_alive(), self.lines
        return self.process.exitcode

    def kill(self, number=9):
        """Send a signal, by the process's own id."""
        self.killed = True
        os.kill(self.process.pid, number)


def sharing(arguments):
    """Return the arguments of a device that takes its share of the job's data, unless it names data of its own."""
    return arguments if "--data" in arguments else ("--share", *arguments)


class Network:
    """Certificates, tokens, and the processes started so far."""

    def __init__(self, folder, devices=3):
        self.folder = folder
        make_certificates(folder / "certs", ["127.0.0.1", "localhost"], ["device"])
        roster = Roster(folder / "devices.json")
        for device in range(devices):
            (folder / f"token-{device}").write_text(roster.enrol(f"device-{device}"))
        self.started = []
        self.port = 0

    def serve(self, *arguments, prepare=None, graphs=False):
        """Start a server and wait until it listens; tracing ``graphs`` takes seconds that torch devices do not need.

        Rounds need all devices unless ``arguments`` say otherwise: a slow machine loses none.
        """
        certs = self.folder / "certs"
        if "--quorum" not in arguments:
            arguments = (*arguments, "--quorum", 0)
        server = Process(
            self.folder, "serve", *arguments, "--graphs" if graphs else "--no-graphs",
            "--port", self.port, "--roster", self.folder / "devices.json",
            "--cert", certs / "server.pem", "--key", certs / "server.key",
            "--servers", self.folder / "servers.json", prepare=prepare,
        )  # fmt: skip
        self.started.append(server)
        self.port = int(server.wait_for(r"listening on https://127.0.0.1:(\d+)")[1])
        return server

    def trunk(self, name, *arguments, prepare=None):
        """Start a trunk server, enrolled under a name the first time."""
        token = self.folder / f"{name}.token"
        if not token.exists():
            token.write_text(TrunkRoster(self.folder / "servers.json").enrol(name))
        certs = self.folder / "certs"
        one = Process(
            self.folder, "trunk", f"127.0.0.1:{self.port}", "--token-file", token, "--ca", certs / "ca.pem",
            "--folder", self.folder / name, "--device", "cpu", "--port", 0, "--cert", certs / "server.pem",
            "--key", certs / "server.key", *arguments, prepare=prepare,
        )  # fmt: skip
        self.started.append(one)
        return one

    def join(self, device, *arguments, prepare=None):
        """Start a device."""
        one = Process(
            self.folder, "join", f"127.0.0.1:{self.port}", "--token-file", self.folder / f"token-{device}",
            "--ca", self.folder / "certs/ca.pem", "--folder", self.folder / f"device-{device}", "--device", "cpu",
            *sharing(arguments), prepare=prepare,
        )  # fmt: skip
        self.started.append(one)
        return one

    def enter(self, name, *arguments):
        """Start a device that enrols itself under a name."""
        one = Process(
            self.folder, "join", f"127.0.0.1:{self.port}", "--name", name, "--ca", self.folder / "certs/ca.pem",
            "--folder", self.folder / name, "--device", "cpu", *sharing(arguments),
        )  # fmt: skip
        self.started.append(one)
        return one

    def device(self, device, *arguments, prepare=None):
        """Start a device without torch."""
        one = Process(
            self.folder, "device", f"127.0.0.1:{self.port}", "--token-file", self.folder / f"token-{device}",
            "--ca", self.folder / "certs/ca.pem", "--folder", self.folder / f"device-{device}", *sharing(arguments),
            prepare=prepare,
        )  # fmt: skip
        self.started.append(one)
        return one


@contextmanager
def network(folder, devices=3):
    """Yield a network and end what it started."""
    made = Network(folder, devices)
    try:
        yield made
    finally:
        for process in made.started:
            if process.process.is_alive():
                process.kill()
            process.wait(10)


def adapters_of(run):
    """Return the adapters in the newest checkpoint of a run."""
    return checkpoint.load(run / "checkpoints")["adapters"]
