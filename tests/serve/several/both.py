"""Two jobs served by one process to devices in threads of this one: the jobs, the server, the devices."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from sflam import config
from sflam.learn import checkpoint
from sflam.link.https_client import Link
from sflam.serve.join import join
from sflam.serve.roster import Roster
from sflam.serve.serve import Serving
from sflam.serve.several import several
from sflam.serve.several.names import own_file
from sflam.serve.web_server import Listen
from tests.serve.test_operation import soon

SHORT = (
    "fleet.devices=2",
    "learn.rounds=2",
    "learn.local_steps=3",
    "learn.batch=8",
    "learn.device=cpu",
    "learn.canonical=true",
    "learn.evaluate_every=2",
    "data.partition=iid",
    "model.rank=2",
    "quant.bits_up=4",
    "quant.bits_down=4",
)
OTHER = ("seed=7", "model.cut=2", "learn.method=sfl-v2", "quant.bits_up=8", "learn.rounds=3")


def job_of(*settings):
    return config.load(None, [*SHORT, *settings])


class Both:
    """Jobs that are served, and what their devices need.

    Args:
        folder: for everything.
        jobs: name -> job, or a folder of runs to go on with.
        options: of Serving.
    """

    def __init__(self, folder, jobs, **options):
        self.folder = folder
        self.serving = Serving(
            listen=Listen(port=0),
            roster=folder / "devices.json",
            operators=folder / "operators.json",
            **({"quorum": 0, "graphs": False} | options),
        )
        if isinstance(jobs, dict):
            self.served = several.start(jobs, folder / "runs", self.serving)
        else:
            self.served = several.resume(jobs, self.serving)
        self.thread = threading.Thread(target=self.served.run)

    def token(self, name, device):
        """Return the token of a device of a job, made at first."""
        file = self.folder / f"{name}-{device}.token"
        if not file.exists():
            for number in range(device + 1):
                made = self.folder / f"{name}-{number}.token"
                if not made.exists():
                    made.write_text(Roster(own_file(self.serving.roster, name)).enrol(f"device-{number}"))
        return file.read_text()

    def url(self, name=""):
        return f"http://127.0.0.1:{self.served.server.port}" + (f"/jobs/{name}" if name else "")

    def link(self, name, token, **options):
        return Link(self.url(name), token, **({"patience": 60} | options))

    def device(self, name, device):
        """Be a device until its job ends; return the rounds it trained."""
        link = self.link(name, self.token(name, device))
        try:
            return join(link, None, self.folder / f"{name}-{device}", share=True, notify=lambda line: None)
        finally:
            link.close()

    def __enter__(self):
        self.thread.start()
        soon(lambda: self.served.server._server.started)
        return self

    def __exit__(self, *_):
        self.served.stop()
        self.thread.join(60)
        assert not self.thread.is_alive()

    def run(self, devices):
        """Let (job, device) pairs take part until their jobs end; return the rounds of each."""
        for name, device in devices:
            self.token(name, device)
        with self, ThreadPoolExecutor(len(devices)) as pool:
            joined = [pool.submit(self.device, name, device) for name, device in devices]
            found = [one.result(300) for one in joined]
            self.thread.join(60)
        return found


def adapters_of(run):
    return checkpoint.load(run / "checkpoints")["adapters"]
