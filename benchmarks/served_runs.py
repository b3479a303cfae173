"""A served round beside one in a process, and recovery after a death: ``python benchmarks/served_runs.py [--json]``.

The default job with three devices, served over TLS by ``sflam serve`` to three ``sflam join``, all on this machine; the
same job by ``sflam train``; and, served again, with sums under masks, and with buffered rounds of two updates (whose
seconds are those of three updates). Then a device is killed in the middle of a round and started again, and then the
server. A device has recovered when the server knows it again, a server when it has opened the round again; most of
either is Python loading torch and the model.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import parser, set_up, show

from sflam.serve.certificates import make_certificates
from sflam.serve.roster import Roster

ROUNDS = 5
STEPS = ("learn.local_steps=20", f"learn.rounds={ROUNDS}")
JOB = ("fleet.devices=3", "learn.evaluate_every=0", "learn.device=cpu", *STEPS)
SETS = [word for setting in JOB for word in ("--set", setting)]
MASKED = ("privacy.secure_aggregation=true", "quant.adapters_scale=common")
UPDATES = 2
BUFFERED = ("learn.sync=buffered", f"learn.buffer={UPDATES}")


class Site:
    """A folder with certificates, tokens, and the processes started in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, 0
        make_certificates(folder / "certs", ["127.0.0.1"])
        roster = Roster(folder / "devices.json")
        for device in range(3):
            (folder / f"token-{device}").write_text(roster.enrol(f"device-{device}"))

    def command(self, *words: Any) -> subprocess.Popen[bytes]:
        """Start a command of sflam."""
        log = (self.folder / "log").open("ab")
        run = [sys.executable, "-c", "from sflam.cli import main; main()", *map(str, words)]
        return subprocess.Popen(
            run, stdout=log, stderr=log, cwd=self.folder, env=os.environ | {"HF_HUB_OFFLINE": "1"}
        )

    def serve(self, *words: Any) -> subprocess.Popen[bytes]:
        """Start the server, on the port it had before."""
        certs = self.folder / "certs"
        files = ("--cert", certs / "server.pem", "--key", certs / "server.key", "--roster", "devices.json")
        server = self.command("serve", *words, *files, "--port", self.port)
        if not self.port:
            text = until(
                lambda: (self.folder / "log").read_text().partition("listening on https://127.0.0.1:")[2]
            )
            self.port = int(text.partition(",")[0])
        return server

    def join(self, device: int) -> subprocess.Popen[bytes]:
        """Start a device."""
        return self.command(
            "join", f"127.0.0.1:{self.port}", "--token-file", f"token-{device}", "--ca", "certs/ca.pem", "--folder",
            f"device-{device}", "--device", "cpu", "--share",
        )  # fmt: skip

    def undisturbed(self, *settings: str) -> list[float]:
        """Serve the job with more settings to its end; return the seconds of every round but the first."""
        more = [word for setting in settings for word in ("--set", setting)]
        server = self.serve(*SETS, *more, "--out", "run")
        ended = [server, *(self.join(device) for device in range(3))]
        if any([one.wait() for one in ended]):
            raise SystemExit((self.folder / "log").read_text())
        found = seconds_of(self.folder / "run")
        shutil.rmtree(self.folder / "run")
        for device in range(3):  # another run: what devices kept is of this one
            shutil.rmtree(self.folder / f"device-{device}")
        return found

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of one kind in the server's event_log."""
        path = self.folder / "run" / "served.jsonl"
        if not path.exists():
            return []
        return [one for one in map(json.loads, path.read_text().splitlines()) if one["event"] == kind]


def until(found: Callable[[], Any], seconds: float = 300.0) -> Any:
    """Wait for something that is true, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.02)
    raise SystemExit("it took too long; see the log in the folder")


def seconds_of(run: Path) -> list[float]:
    """Return the seconds of every round but the first, which warms up."""
    lines = (run / "history.jsonl").read_text().splitlines()[2:]
    return [json.loads(line)["seconds"] for line in lines]


def main() -> None:
    """Measure both."""
    args = parser(__doc__).parse_args()
    set_up(args)
    with tempfile.TemporaryDirectory() as name:
        site = Site(Path(name))
        site.command("train", *SETS, "--out", "alone").wait()
        plain, masked, buffered = (site.undisturbed(*more) for more in ((), MASKED, BUFFERED))

        server = site.serve(*SETS, "--out", "run")
        joined = [site.join(device) for device in range(3)]
        until(lambda: site.events("opened"))
        time.sleep(1.0)
        joined[0].kill()
        joined[0].wait()
        began = time.time()
        joined[0] = site.join(0)
        back = until(lambda: [one for one in site.events("back") if one["device"] == 0])[0]["time"] - began
        until(lambda: len(site.events("opened")) > 1)
        time.sleep(1.0)
        server.kill()
        server.wait()
        opened, began = len(site.events("opened")), time.time()
        server = site.serve("--resume", "run")
        again = until(lambda: site.events("opened")[opened:])[0]["time"] - began
        ended = [server.wait(), *(one.wait() for one in joined)]
        alone = seconds_of(site.folder / "alone")
        rows = [
            {"what": "s of a round in one process", "median": round(statistics.median(alone), 2)},
            {"what": "s of a round served", "median": round(statistics.median(plain), 2)},
            {"what": "s of a round served, sums under masks", "median": round(statistics.median(masked), 2)},
            {
                "what": "s of three updates served, buffered",
                "median": round(3 * sum(buffered) / len(buffered) / UPDATES, 2),
            },
            {"what": "s until a killed device is back", "median": round(back, 2)},
            {"what": "s until a killed server has opened the round again", "median": round(again, 2)},
            {"what": "processes that ended with an error", "median": sum(map(bool, ended))},
        ]
    show(rows, as_json=args.json, title="a served run")


if __name__ == "__main__":
    main()
