"""Rounds planned from what was measured, over shaped links: ``python benchmarks/closed_loop.py``, as root.

A server and four devices without torch, each a process in a network namespace of its own, with a pair of virtual
interfaces between each device and the server that ``tc tbf`` limits both ways. The links change after every third
round: the slowest is then another device's. The same job is served with 8 bits, with 4 bits, planned once from a probe
(``plan.every = 0``), planned every round from the last one's uploads (``fleet.plan = "measured"``), and from a probe
before each (``plan.probe``); chi is as a simulated run measured it. Then the 8-bit run over links that stay is
calibrated (``sflam profile --from``), and the calibrated job is served again: what was expected of its rounds before
the first one, beside what they took.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from sflam.records import history
from sflam.records.history import RoundRecord
from sflam.serve.certificates import make_certificates
from sflam.serve.roster import Roster

RATES = (1.0, 4.0, 8.0, 16.0)
"""Mbit/s, both ways."""
CHANGES = 3
"""Rounds after which the rates move on by one device."""
ROUNDS, TARGET = 9, 0.9
JOB = (
    f"fleet.devices={len(RATES)}",
    f"learn.rounds={ROUNDS}",
    "learn.local_steps=4",
    "learn.batch=32",
    "learn.device=cpu",
    "learn.evaluate_every=1",
    "data.partition=iid",
    "model.cut=1",
)
CHOSEN = (
    "fleet.plan=measured",
    'plan.optimize=["bits", "bits_down"]',
    "plan.sensitivity=0.1",
    "plan.sensitivity_down=0.005",
)
WAYS: dict[str, tuple[str, ...]] = {
    "8 bits": ("quant.bits_up=8", "quant.bits_down=8"),
    "4 bits": ("quant.bits_up=4", "quant.bits_down=4"),
    "planned once": (*CHOSEN, "plan.every=0"),
    "planned by the last round": CHOSEN,
    "planned by probes": (*CHOSEN, "plan.probe=true"),
}
SERVER, DEVICE = f"sflam-s{os.getpid()}", f"sflam-d{os.getpid()}-"


def ip(*words: str) -> None:
    """Run ``ip`` with these words."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


def shape(rates: tuple[float, ...]) -> None:
    """Limit every device's link, both ways."""
    for device, rate in enumerate(rates):
        for space, link in ((f"{DEVICE}{device}", "way"), (SERVER, f"down{device}")):
            words = f"tc qdisc replace dev {link} root tbf rate {rate}mbit burst 16kb latency 500ms"
            ip("netns", "exec", space, *words.split())


def build() -> None:
    """Make the namespaces and their links."""
    ip("netns", "add", SERVER)
    ip("-n", SERVER, "link", "set", "lo", "up")
    for device in range(len(RATES)):
        space = f"{DEVICE}{device}"
        ip("netns", "add", space)
        ip(
            "-n",
            SERVER,
            "link",
            "add",
            f"down{device}",
            "type",
            "veth",
            "peer",
            "name",
            "way",
            "netns",
            space,
        )
        for name, link, end in ((SERVER, f"down{device}", 1), (space, "way", 2)):
            ip("-n", name, "addr", "add", f"10.78.{device}.{end}/24", "dev", link)
            ip("-n", name, "link", "set", link, "up")


def remove() -> None:
    """Take the namespaces away."""
    for space in (SERVER, *(f"{DEVICE}{device}" for device in range(len(RATES)))):
        subprocess.run(["ip", "netns", "del", space], capture_output=True)


def started(space: str, log: Path, *words: object) -> subprocess.Popen[bytes]:
    """Start a command of sflam in a namespace."""
    command = ["ip", "netns", "exec", space, sys.executable, "-m", "sflam", *map(str, words)]
    with log.open("w") as file:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)


def changing(events: Path, over: threading.Event) -> None:
    """Move the rates on after every ``CHANGES`` rounds, as the server's events say."""
    seen = 0
    while not over.wait(0.02):
        closed = events.read_text().count('"closed"') if events.exists() else 0
        if closed > seen:
            seen = closed
            if seen % CHANGES == 0:
                by = seen // CHANGES
                shape(tuple(RATES[(device - by) % len(RATES)] for device in range(len(RATES))))


def served(folder: Path, *words: object, moving: bool = True) -> list[RoundRecord]:
    """Serve a job to the devices; return its records."""
    folder.mkdir()
    shape(RATES)
    hosts = [f"10.78.{device}.1" for device in range(len(RATES))]
    make_certificates(folder / "certs", hosts)
    roster = Roster(folder / "devices.json")
    tokens = [folder / f"token-{device}" for device in range(len(RATES))]
    for device, token in enumerate(tokens):
        token.write_text(roster.enrol(f"device-{device}"))
    log = folder / "server.log"
    arguments = [
        "serve", *words, "--out", folder / "run", "--host", "0.0.0.0", "--port", 8443, "--roster",
        folder / "devices.json", "--cert", folder / "certs/server.pem", "--key", folder / "certs/server.key",
        "--quorum", 0,
    ]  # fmt: skip
    processes, over = [started(SERVER, log, *arguments)], threading.Event()
    try:
        until = time.monotonic() + 120
        while "listening on" not in log.read_text():
            if processes[0].poll() is not None or time.monotonic() > until:
                raise SystemExit(log.read_text())
            time.sleep(0.1)
        for device, token in enumerate(tokens):
            processes.append(
                started(
                    f"{DEVICE}{device}",
                    folder / f"device-{device}.log",
                    "device",
                    f"{hosts[device]}:8443",
                    "--token-file",
                    token,
                    "--ca",
                    folder / "certs/ca.pem",
                    "--share",
                    "--folder",
                    folder / f"device-{device}",
                    "--threads",
                    1,
                )
            )
        if moving:
            threading.Thread(target=changing, args=(folder / "run/served.jsonl", over), daemon=True).start()
        if processes[0].wait(900):
            raise SystemExit(log.read_text())
    finally:
        over.set()
        for process in processes:
            if process.poll() is None:
                process.terminate()
            process.wait(30)
    return history.read(folder / "run/history.jsonl")[1]


def figures(records: list[RoundRecord]) -> dict[str, Any]:
    """Return what is compared of a run."""
    took = [record.measured.seconds for record in records if record.measured]
    reached = next((n for n, record in enumerate(records) if (record.accuracy or 0.0) >= TARGET), None)
    every = [record.measured for record in records if record.measured]
    off = [abs(one.predicted.seconds / one.seconds - 1) for one in every if one.predicted]
    return {
        "seconds": sum(took),
        "mean_round_s": statistics.fmean(took),
        "seconds_to_target": sum(took[: reached + 1]) if reached is not None else None,
        "rounds_to_target": None if reached is None else reached + 1,
        "accuracy": records[-1].accuracy,
        "bits_up": [list(one.bits_up) for one in every],
        "bits_down": [list(one.bits_down) for one in every],
        "rounds_s": took,
        "prediction_error": statistics.median(off) if off else None,
    }


def calibration(folder: Path) -> dict[str, Any]:
    """Return what a calibrated job expects of its rounds, before any of them, beside what they took."""
    still = served(folder / "still", *sets(JOB), *sets(WAYS["8 bits"]), moving=False)
    out = folder / "next.toml"
    subprocess.run(
        [sys.executable, "-m", "sflam", "profile", "--from", folder / "still/run", "--out", out],
        check=True,
        capture_output=True,
    )
    records = served(folder / "next", out, moving=False)
    first = records[0].measured
    assert first is not None and first.predicted is not None and first.predicted.source == "network"
    took = [record.measured.seconds for record in records if record.measured]
    expected = first.predicted.seconds
    return {
        "expected_s": expected,
        "rounds_s": took,
        "first_run_rounds_s": [record.measured.seconds for record in still if record.measured],
        "errors": [expected / each - 1 for each in took],
        "median_error": statistics.median(abs(expected / each - 1) for each in took),
    }


def sets(settings: tuple[str, ...]) -> list[str]:
    """Return settings as options."""
    return list(itertools.chain.from_iterable(("--set", each) for each in settings))


def main() -> None:
    """Run it and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write what was found")
    parser.add_argument("--only", choices=["ways", "calibration"], help="one half of it")
    options = parser.parse_args()
    if sys.platform != "linux" or os.geteuid():
        raise SystemExit("network namespaces need root, on Linux")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            build()
            for number, (way, settings) in enumerate(WAYS.items()):
                if options.only != "calibration":
                    found[way] = figures(served(folder / f"way-{number}", *sets((*JOB, *settings))))
                    one = found[way]
                    target = one["seconds_to_target"]
                    reached = f"{target:.1f} s" if target is not None else "not reached"
                    print(
                        f"{way}: {one['seconds']:.1f} s for {ROUNDS} rounds, accuracy {one['accuracy']:.3f}, "
                        f"{TARGET:.0%} after {reached}",
                        flush=True,
                    )
            if options.only != "ways":
                found["calibration"] = one = calibration(folder)
                print(
                    f"calibrated: {one['expected_s']:.2f} s expected, {statistics.median(one['rounds_s']):.2f} s taken "
                    f"(median), off by {one['median_error']:.1%} (median)",
                    flush=True,
                )
        finally:
            remove()
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
