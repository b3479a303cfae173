"""What a round and a process cost as a fleet grows: ``python benchmarks/many_devices.py [--json]``.

The default model on digits with noise, as many as give every device some; fleets of K devices, of which ``--active``
take part in a round with ``--steps`` mini-batches each. Rounds of all fleets come in turns, without evaluation: CPU
seconds per device that took part, and ``ratio``, the median over turns of that over the first fleet's with as many
active ones. Memory is VmHWM of a process of its own that trains as many rounds; ``ready_s`` the wall-clock seconds from
a job to the first round of that process, without imports; ``history`` the bytes that a round adds to the run folder's
history, ``momenta`` those of the file where moments lie with ``--state keep``.

``--set`` changes the job as it does for ``sflam train``, for example ``--set network.simulate=true``.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import parser, set_up, show
from sklearn.datasets import load_digits

from sflam import config
from sflam.run import start as jobs
from sflam.run.run import Run

SAMPLES_EACH, TEST = 4, 0.1


def write_digits(path: Path, count: int, seed: int) -> None:
    """Write ``count`` digits drawn with replacement, each with noise of its own."""
    draw, digits = np.random.default_rng(seed), load_digits()
    taken = draw.integers(len(digits.images), size=count)
    images = digits.images[taken] * (255 / 16) + draw.normal(0, 12, (count, 8, 8))
    np.savez(path, image=images.clip(0, 255).round().astype(np.uint8), label=digits.target[taken])


def begun(args: Namespace, devices: int, folder: Path) -> Run:
    """Return a run of a fleet that is ready for its first round."""
    own = [
        f"data.name={args.data}",
        f"data.test={TEST}",
        "data.partition=iid",
        "data.minimum=1",
        f"fleet.devices={devices}",
        f"fleet.selected={min(args.active, devices) if devices > args.active else 0}",
        f"learn.rounds={args.repeats + 2}",
        f"learn.local_steps={args.steps}",
        f"learn.batch={SAMPLES_EACH}",
        f"learn.state={args.state}",
        "learn.evaluate_every=0",
        "learn.evaluate_samples=100",
        f"seed={args.seed}",
    ]
    return jobs.start(config.load(None, [*own, *args.overrides]), folder)


def timed(rounds: Iterator[Any]) -> float:
    """Run one round; return its CPU seconds."""
    began = time.process_time()
    next(rounds)
    return time.process_time() - began


def in_one_process(args: Namespace) -> dict[int, list[float]]:
    """Return devices -> CPU seconds of each round but the first; the fleets take turns."""
    with tempfile.TemporaryDirectory() as room:
        fleets = {k: begun(args, k, Path(room) / str(k)).rounds() for k in args.fleets}
        for rounds in fleets.values():
            timed(rounds)
        found: dict[int, list[float]] = {k: [] for k in fleets}
        for _ in range(args.repeats):
            for k, rounds in fleets.items():
                found[k].append(timed(rounds))
    return found


def alone(args: Namespace) -> dict[str, Any]:
    """Train one fleet in this process; return what it took."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as room:
        run = begun(args, args.one, Path(room) / "run")
        ready, rounds = time.perf_counter() - began, run.rounds()
        sizes = []
        for _ in range(args.repeats + 1):
            next(rounds)
            sizes.append(sum(path.stat().st_size for path in run.folder.path.glob("history.*")))
        momenta = sum(path.stat().st_size for path in run.folder.path.glob("momenta/*"))
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = re.search(r"VmHWM:\s+(\d+)", status)
    return {
        "ready_s": round(ready, 1),
        "peak_mb": round(int(peak[1]) / 1024) if peak else None,
        "history": (sizes[-1] - sizes[0]) // args.repeats,
        "momenta": momenta,
    }


def in_process_of_its_own(args: Namespace, devices: int) -> dict[str, Any]:
    """Return what :func:`alone` finds for one fleet."""
    again = [word for override in args.overrides for word in ("--set", override)]
    for name in ("active", "steps", "state", "repeats", "seed", "threads", "data"):
        again += [f"--{name}", str(getattr(args, name))]
    command = [sys.executable, __file__, "--one", str(devices), *again]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    options = parser(__doc__, repeats=7)
    options.add_argument("--fleets", type=int, nargs="+", default=[10, 100, 1000, 10_000], metavar="K")
    options.add_argument("--active", type=int, default=100, help="devices of a round, at most")
    options.add_argument("--steps", type=int, default=3, help="mini-batches of a device in a round")
    options.add_argument("--state", choices=("reset", "keep"), default="reset")
    options.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    options.add_argument("--one", type=int, default=0, help="train one fleet of so many devices")
    options.add_argument("--data", type=Path, help="the .npz to use instead of making it")
    args = options.parse_args()
    if args.one:
        print(json.dumps(alone(args)))
        return
    set_up(args)
    with tempfile.TemporaryDirectory() as room:
        if args.data is None:
            args.data = Path(room) / "digits.npz"
            count = round(max(args.fleets) * SAMPLES_EACH / (1 - TEST)) + 10
            write_digits(args.data, count, args.seed)
        times = in_one_process(args)
        rows = []
        for k in args.fleets:
            active = min(args.active, k)
            alike = next(other for other in args.fleets if min(args.active, other) == active)
            pairs = zip(times[k], times[alike], strict=True)
            rows.append(
                {
                    "devices": k,
                    "active": active,
                    "cpu_s_a_round": round(statistics.median(times[k]), 3),
                    "cpu_ms_a_device": round(1e3 * statistics.median(times[k]) / active, 2),
                    "ratio": round(statistics.median(mine / theirs for mine, theirs in pairs), 3),
                    **in_process_of_its_own(args, k),
                }
            )
    show(rows, as_json=args.json, title=f"fleets of K devices, learn.state = {args.state}")


if __name__ == "__main__":
    main()
