"""How many steps a second a server carries over TLS: ``python benchmarks/served.py [--json]``.

Devices are threads of four other processes that send ready-made bodies one after another, so what is measured is the
server: sockets, TLS, checks, the session, and either nothing behind them (the answer is ready-made, too) or the trunk
of the default job; beside them an application that only sends bodies back. Everything runs on this machine, so devices
take their share of its cores. Bytes are those of the sockets, with HTTP and TLS, over packed codes and side
information; memory is what the server's process has at most beyond what it had before the first step.
"""

from __future__ import annotations

import multiprocessing
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sflam import config
from sflam.codec.bodies import encode
from sflam.codec.messages import GradientFrame, StepFrame
from sflam.codec.quantizers import quantizer
from sflam.link.contract import Contract
from sflam.link.https_client import Link
from sflam.serve.app import application
from sflam.serve.certificates import make_certificates
from sflam.serve.dispatch import Dispatch
from sflam.serve.ingress import Bounds, Ingress
from sflam.serve.roster import Roster
from sflam.serve.session import Session
from sflam.serve.web_server import Listen, WebServer
from sflam.sizes import payload_bytes

PLAIN = Contract(
    device=0, scheme="uniform", bits=4, dim=768, tokens=1, text=False, labels_up=True, per_token=False, classes=10,
    batch=1, local_steps=1, local_epochs=1, adapters=0,
)  # fmt: skip
SIZES = {
    "1 kB": (2, 400),
    "0.1 MB": (258, 200),
    "0.5 MB": (1290, 60),
    "5 MB": (12900, 8),
}  # tokens; steps of a device
PROCESSES = 4


def bodies(contract: Contract, steps: int) -> list[bytes]:
    """Return the bodies of a device's steps, all of the same activations."""
    draw = np.random.default_rng(contract.device)
    tokens = draw.normal(size=(contract.batch * contract.tokens, contract.dim)).astype(np.float32)
    packed = quantizer(contract.scheme).encode(tokens, contract.bits, 1)
    labels = draw.integers(0, contract.classes, contract.batch).astype(np.int32)
    return [
        encode(StepFrame(0, step, contract.device, packed, contract.batch, None, labels))
        for step in range(steps)
    ]


def devices(
    group: list[Contract], steps: int, port: int, tokens: list[str], ca: Path, ready: Any, found: Any
) -> None:
    """Be some devices, a thread each; once all are connected send every step.

    Puts into ``found``: the seconds it took, the seconds of every step, and the bytes their sockets saw both ways.
    """
    links = [Link(f"127.0.0.1:{port}", token, ca=ca) for token in tokens]
    made = [bodies(contract, steps) for contract in group]
    for link in links:
        link.json("GET", "/v1/round")
    before = [seen(link) for link in links]

    def steps_of(link: Link, own: list[bytes]) -> list[float]:
        took = []
        for step, body in enumerate(own):
            at = time.perf_counter()
            link.call("POST", f"/v1/rounds/0/1/steps/{step}", body)
            took.append(time.perf_counter() - at)
        return took

    ready.wait()
    began = time.perf_counter()
    with ThreadPoolExecutor(len(links)) as pool:
        took = [each for own in pool.map(steps_of, links, made) for each in own]
    seconds = time.perf_counter() - began
    after = [seen(link) for link in links]
    crossed = [sum(two[way] - one[way] for one, two in zip(before, after, strict=True)) for way in (0, 1)]
    found.put((seconds, took, crossed))


def seen(link: Link) -> tuple[int, int]:
    """Return the bytes a connection has sent (and had acknowledged) and received: HTTP and TLS included."""
    assert link._connection is not None
    info = link._connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136)
    return struct.unpack_from("<QQ", info, 120)


def peak() -> int:
    """Return the largest bytes this process has had in memory since :func:`forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def forget_peak() -> int:
    """Begin to look for the peak anew; return the bytes in memory now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def null_trunk(dispatch: Dispatch, contract: Contract) -> None:
    """Answer every arrival with a gradient made beforehand."""
    tokens = np.zeros((contract.batch * contract.tokens, contract.dim), np.float32)
    body = encode(
        GradientFrame(0, 0, 0, loss=0.5, gradient=quantizer(contract.scheme).encode(tokens, contract.bits, 1))
    )
    while arrivals := dispatch.collect():
        for arrival in arrivals:
            dispatch.answer(arrival, 1, bytes(bytearray(body)))  # each its own, as from a trunk


def real_trunk(devices: int) -> tuple[dict[int, Contract], Any]:
    """Return the contracts of the default job and a function that serves its trunk."""
    from sflam.learn.split_fleet import LocalFleet
    from sflam.run.assemble import assemble
    from sflam.serve.serve import contracts_of
    from sflam.serve.trunk_worker import Worker

    assembly = assemble(config.load(None, [f"fleet.devices={devices}", "learn.device=cpu"]))
    local = assembly.fleet
    assert isinstance(local, LocalFleet)
    local.download(0, range(devices), assembly.state)
    cuts = dict(enumerate(local.devices.cuts))

    def work(dispatch: Dispatch, _: Contract) -> None:
        Worker(dispatch, local.servers, local.exchange, cuts).serve(0, 1, tuple(range(devices)))

    return contracts_of(assembly, local), work


def echo() -> Starlette:
    """Return an application that sends every body back: what the web server itself can do."""

    async def back(request: Request) -> Response:
        body, at = bytearray(int(request.headers.get("content-length", "0"))), 0
        async for chunk in request.stream():
            body[at : at + len(chunk)] = chunk
            at += len(chunk)
        return Response(bytes(body) if body else b"{}")

    return Starlette(routes=[Route("/{path:path}", back, methods=["GET", "POST"])])


def measure(
    contracts: dict[int, Contract],
    steps: int,
    work: Any,
    app: Starlette | None = None,
    around: Callable[[int], AbstractContextManager[Any]] = nullcontext,
) -> dict[str, Any]:
    """Return steps a second of all devices together, and more.

    ``app`` stands in for the server's own; ``around`` is entered with the port while devices are at work.
    """
    contracts = {number: replace(one, local_steps=steps) for number, one in contracts.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_certificates(folder, ["127.0.0.1"])
        roster = Roster(folder / "devices.json")
        tokens = [roster.enrol(f"device-{number}") for number in contracts]
        dispatch = Dispatch(Session(1, patience=1000.0))
        largest = max(one.largest() for one in contracts.values())
        ingress = Ingress(dispatch, roster, contracts, lambda _: {}, {}, Bounds(1 << 30, 2 * largest))
        listen = Listen(port=0, certificate=folder / "server.pem", key=folder / "server.key")
        server = WebServer(app or application(ingress), dispatch, listen)
        context = multiprocessing.get_context("spawn")
        groups = [list(contracts)[n::PROCESSES] for n in range(min(PROCESSES, len(contracts)))]
        ready, found = context.Barrier(len(groups) + 1), context.Queue()
        started = [
            context.Process(
                target=devices,
                args=(
                    [contracts[n] for n in group],
                    steps,
                    server.port,
                    [tokens[n] for n in group],
                    folder / "ca.pem",
                    ready,
                    found,
                ),
            )
            for group in groups
        ]
        server.start()
        for number, one in contracts.items():
            dispatch.session.hello(number, steps * one.batch, dispatch.clock())
        dispatch.open(0, 1, dict.fromkeys(contracts, steps), 1e6, {})
        worker = threading.Thread(target=work, args=(dispatch, contracts[0]), daemon=True)
        worker.start()
        held = ExitStack()
        held.enter_context(around(server.port))
        for process in started:
            process.start()
        ready.wait()
        before, computing = forget_peak(), time.process_time()
        done = [found.get(timeout=500) for _ in started]
        computing = time.process_time() - computing
        held.close()
        memory = peak() - before
        for process in started:
            process.join()
        dispatch.stop()
        worker.join(10)
        server.stop()
    one, count = contracts[0], len(contracts)
    size = one.forward_bytes(one.batch, one.batch * one.tokens, False)
    payload = count * steps * payload_bytes(one.batch * one.tokens, one.dim, one.bits, one.scheme)
    took = sorted(each for _, own, _ in done for each in own)
    up, down = (sum(crossed[way] for *_, crossed in done) for way in (0, 1))
    rate = count * steps / max(seconds for seconds, *_ in done)
    return {
        "devices": count,
        "body bytes": size,
        "steps/s": round(rate, 1),
        "MB/s up": round(rate * size / 1e6, 1),
        "CPU ms/step": round(1e3 * computing / (count * steps), 3),
        "median ms": round(1e3 * took[len(took) // 2], 2),
        "95 % ms": round(1e3 * took[int(0.95 * len(took))], 2),
        "socket/payload up": round(up / payload, 4),
        "socket/payload down": round(down / payload, 4),
        "server MB more": round(memory / 1e6, 1),
        "in frames": round(memory / (count * size), 2),
    }


def main() -> None:
    """Measure every size and number of devices, then the trunk of the default job."""
    from common import parser, set_up, show  # knows torch, which the devices' processes need not load

    one = parser(__doc__)
    one.add_argument("--devices", default="1,4,16", help="numbers of devices, 1,4,16 by default")
    one.add_argument("--sizes", default=",".join(SIZES), help="sizes of bodies, all by default")
    one.add_argument("--trunks", default="none,echo,job", help="none, also echo, job")
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
        for count in counts if name in args.sizes.split(",") and "none" in args.trunks else ():
            contracts = {n: replace(PLAIN, device=n, tokens=tokens) for n in range(count)}
            few = max(4, min(steps, 2 * steps // count))
            add({"trunk": "none", "body": name} | measure(contracts, few, null_trunk))
            if "echo" in args.trunks:
                add({"trunk": "echo", "body": name} | measure(contracts, few, null_trunk, echo()))
    for count in counts if "job" in args.trunks else ():
        contracts, work = real_trunk(count)
        add({"trunk": "default job", "body": "as it is"} | measure(contracts, max(10, 80 // count), work))
    if rows:
        show(rows, as_json=False, title="steps over TLS on one machine")


if __name__ == "__main__":
    main()
