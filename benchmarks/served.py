"""How many steps a second a server carries over TLS: ``python benchmarks/served.py [--json]``.

Devices are processes of their own that send ready-made bodies one after another, so what is measured is the server:
sockets, TLS, checks, the session, and either nothing behind them (the answer is ready-made, too) or the trunk of the
default job. Everything runs on this machine, so devices take their share of its cores.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sflam import config
from sflam.quant.schemes import quantizer
from sflam.runtime.app import application
from sflam.runtime.bounds import Bounds
from sflam.runtime.certificates import make_certificates
from sflam.runtime.credentials import Roster
from sflam.runtime.desk import Desk
from sflam.runtime.door import Door
from sflam.runtime.link import Link
from sflam.runtime.server import Listen, Server
from sflam.runtime.session import Session
from sflam.runtime.terms import Terms
from sflam.wire.codec import encode
from sflam.wire.messages import GradientFrame, StepFrame

PLAIN = Terms(
    device=0, scheme="uniform", bits=8, dim=768, tokens=1, text=False, labels_up=True, per_token=False, classes=10,
    batch=1, local_steps=1, local_epochs=1, adapters=0,
)  # fmt: skip
SIZES = {
    "1 kB": (1, 400),
    "0.1 MB": (130, 200),
    "0.5 MB": (650, 60),
    "5 MB": (6500, 8),
}  # tokens; steps of a device


def bodies(terms: Terms, steps: int) -> list[bytes]:
    """Return the bodies of a device's steps, all of the same activations."""
    draw = np.random.default_rng(terms.device)
    tokens = draw.normal(size=(terms.batch * terms.tokens, terms.dim)).astype(np.float32)
    packed = quantizer(terms.scheme).encode(tokens, terms.bits, 1)
    labels = draw.integers(0, terms.classes, terms.batch).astype(np.int32)
    return [
        encode(StepFrame(0, step, terms.device, packed, terms.batch, None, labels)) for step in range(steps)
    ]


def device(terms: Terms, steps: int, port: int, token: str, ca: Path, ready: Any, seconds: Any) -> None:
    """Send every step once all devices are connected; put the time it took into ``seconds``."""
    link = Link(f"127.0.0.1:{port}", token, ca=ca)
    made = bodies(terms, steps)
    link.json("GET", "/v1/round")
    ready.wait()
    began = time.perf_counter()
    for step, body in enumerate(made):
        link.call("POST", f"/v1/rounds/0/1/steps/{step}", body)
    seconds.put(time.perf_counter() - began)


def null_trunk(desk: Desk, terms: Terms) -> None:
    """Answer every arrival with a gradient made beforehand."""
    tokens = np.zeros((terms.batch * terms.tokens, terms.dim), np.float32)
    body = encode(
        GradientFrame(0, 0, 0, loss=0.5, gradient=quantizer(terms.scheme).encode(tokens, terms.bits, 1))
    )
    while arrivals := desk.collect():
        for arrival in arrivals:
            desk.answer(arrival, 1, body)


def real_trunk(devices: int) -> tuple[dict[int, Terms], Any]:
    """Return the terms of the default job and a function that serves its trunk."""
    from sflam.assembly import assemble
    from sflam.learn.local import LocalFleet
    from sflam.runtime.worker import Worker
    from sflam.serving import terms_of

    assembly = assemble(config.load(None, [f"fleet.devices={devices}", "learn.device=cpu"]))
    local = assembly.fleet
    assert isinstance(local, LocalFleet)
    local.download(0, range(devices), assembly.state)
    cuts = dict(enumerate(local.devices.cuts))

    def work(desk: Desk, _: Terms) -> None:
        Worker(desk, local.trunk, local.crossing, cuts).serve(0, 1, tuple(range(devices)))

    return terms_of(assembly, local), work


def measure(terms: dict[int, Terms], steps: int, work: Any) -> dict[str, Any]:
    """Return steps a second of all devices together."""
    terms = {number: replace(one, local_steps=steps) for number, one in terms.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_certificates(folder, ["127.0.0.1"])
        roster = Roster(folder / "devices.json")
        tokens = [roster.enrol(f"device-{number}") for number in terms]
        desk = Desk(Session(1, patience=1000.0))
        largest = max(one.largest() for one in terms.values())
        door = Door(desk, roster, terms, lambda _: {}, {}, Bounds(1 << 30, 2 * largest))
        listen = Listen(port=0, certificate=folder / "server.pem", key=folder / "server.key")
        server = Server(application(door), desk, listen)
        context = multiprocessing.get_context("spawn")
        ready, seconds = context.Barrier(len(terms)), context.Queue()
        started = [
            context.Process(
                target=device,
                args=(one, steps, server.port, tokens[number], folder / "ca.pem", ready, seconds),
            )
            for number, one in terms.items()
        ]
        server.start()
        for number, one in terms.items():
            desk.session.hello(number, steps * one.batch, desk.clock())
        desk.open(0, 1, dict.fromkeys(terms, steps), 1e6, {})
        worker = threading.Thread(target=work, args=(desk, terms[0]), daemon=True)
        worker.start()
        for process in started:
            process.start()
        took = max(seconds.get(timeout=500) for _ in started)
        for process in started:
            process.join()
        desk.stop()
        worker.join(10)
        server.stop()
    size = terms[0].forward_bytes(terms[0].batch, terms[0].batch * terms[0].tokens, False)
    rate = len(terms) * steps / took
    return {
        "devices": len(terms),
        "body bytes": size,
        "steps/s": round(rate, 1),
        "MB/s up": round(rate * size / 1e6, 1),
    }


def main() -> None:
    """Measure every size and number of devices, then the trunk of the default job."""
    from common import parser, set_up, show  # knows torch, which the devices' processes need not load

    one = parser(__doc__)
    one.add_argument("--devices", default="1,4,16", help="numbers of devices, 1,4,16 by default")
    args = one.parse_args()
    set_up(args)
    rows: list[dict[str, Any]] = []

    def add(row: dict[str, Any]) -> None:
        if args.json:
            show([row], as_json=True)
        else:
            rows.append(row)

    counts = [int(text) for text in args.devices.split(",")]
    for name, (tokens, steps) in SIZES.items():
        for count in counts:
            terms = {n: replace(PLAIN, device=n, tokens=tokens) for n in range(count)}
            add({"trunk": "none", "body": name} | measure(terms, max(4, steps // count), null_trunk))
    for count in counts:
        terms, work = real_trunk(count)
        add({"trunk": "default job", "body": "as it is"} | measure(terms, max(10, 80 // count), work))
    if rows:
        show(rows, as_json=False, title="steps over TLS on one machine")


if __name__ == "__main__":
    main()
