"""A SuperLink and SuperNodes as processes of their own, over TLS on this machine, and `flwr run` of the example app."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sflam.serve.certificates import make_certificates

APP = Path(__file__).parents[2] / "examples" / "flower"
BIN = Path(sys.executable).parent
ENDED = ("finished:completed", "finished:failed", "finished:stopped")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Federation:
    """Certificates, keys, and the processes started so far."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self.started, self.nodes, self.later, self.number = [], {}, [], ""
        home = folder / "flwr"
        home.mkdir()
        self.certs = folder / "certs"
        make_certificates(self.certs, ["127.0.0.1", "localhost"])
        self.environment = os.environ | {
            "FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
            "HOME": str(folder), "COLUMNS": "200",
        }  # fmt: skip
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{self.port}"\n'
            f'root-certificates = "{self.certs / "ca.pem"}"\n'
        )
        self.app = folder / "app"
        shutil.copytree(APP, self.app)
        self._start(
            "superlink", "flower-superlink", "--port", self.port, "--enable-supernode-auth",
            "--disable-runtime-dependency-installation", "--ssl-certfile", self.certs / "server.pem",
            "--ssl-keyfile", self.certs / "server.key", "--ssl-ca-certfile", self.certs / "ca.pem",
        )  # fmt: skip
        self._until(lambda: self._answers(), "the SuperLink does not listen")

    def node(self, name, *config):
        """Start a SuperNode under a key of its own, which is registered the first time."""
        key = self.folder / f"{name}.key"
        if not key.exists():
            private = ec.generate_private_key(ec.SECP384R1())
            pem, ssh, none = (
                serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption(),
            )  # fmt: skip
            key.write_bytes(private.private_bytes(pem, ssh, none))
            public = key.with_suffix(".pub")
            public.write_bytes(
                private.public_key().public_bytes(
                    serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
                )
            )
            self.flwr("supernode", "register", public)
        settings = " ".join([f'folder="{self.folder / name}"', 'device="cpu"', *config])
        self.nodes[name] = self._start(
            name, "flower-supernode", "--superlink", f"127.0.0.1:{self.port}", "--root-certificates",
            self.certs / "ca.pem", "--auth-supernode-private-key", key, "--port", free_port(),
            "--node-config", settings,
        )  # fmt: skip

    def when(self, happened, act, *arguments):
        """Do something once, at the next look at a run after something has happened."""
        self.later.append((happened, act, arguments))

    def run(self, *settings, seconds=400):
        """Run the app until it ends; return its status."""
        overrides = [word for setting in settings for word in ("--run-config", setting)]
        said = json.loads(self.flwr("run", self.app, *overrides, "--format", "json"))
        self.number = str(said.get("run-id") or said["run_id"])
        return self._until(lambda: self._status(self.number), f"run {self.number} does not end", seconds)

    def lines(self):
        """Return what the ServerApp of the last run wrote, as `flwr log` shows it."""
        return self.flwr("log", self.number, "--show")

    def flwr(self, *words):
        """Return what a `flwr` command prints."""
        found = subprocess.run(
            [BIN / "flwr", *map(str, words)], env=self.environment, cwd=self.folder, capture_output=True,
            text=True, timeout=120, check=False,
        )  # fmt: skip
        assert found.returncode == 0, (words, found.stdout, found.stderr)
        return found.stdout

    def log(self, name="superlink"):
        return (self.folder / f"{name}.log").read_text()

    def kill(self, name):
        """End a SuperNode and all its processes at once."""
        os.killpg(self.nodes.pop(name).pid, signal.SIGKILL)

    def stop(self):
        for process in reversed(self.started):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.started:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(15)

    def _status(self, number):
        for each in list(self.later):
            happened, act, arguments = each
            if happened():
                self.later.remove(each)
                act(*arguments)
        time.sleep(4)
        runs = json.loads(self.flwr("list", "--format", "json"))["runs"]
        found = next(run for run in runs if str(run.get("run-id") or run.get("run_id")) == number)
        return found["status"] if found["status"] in ENDED else None

    def _start(self, name, *words):
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                [BIN / words[0], *map(str, words[1:])], env=self.environment, cwd=self.folder, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.started.append(process)
        return process

    def _answers(self):
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0

    def _until(self, found, what, seconds=60):
        until = time.monotonic() + seconds
        while not (answer := found()):
            assert time.monotonic() < until, (what, self.log(), *map(self.log, self.nodes))
            time.sleep(0.5)
        return answer


@contextmanager
def federation(folder):
    """Start a SuperLink, and end all that was started."""
    one = Federation(folder)
    try:
        yield one
    finally:
        one.stop()
