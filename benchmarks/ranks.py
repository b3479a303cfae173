"""What ranks save: ``python benchmarks/ranks.py [--methods sflam sflam-mixed] [--json]``, on Linux.

A job on 1 and on 2 ranks of one thread each, rounds of both in turns, evaluation included. ``wall_s`` is of a round,
``cpu_s`` what all ranks together compute in it, ``cpu_most`` the most of one rank: what a round takes where every rank
has a core of its own and exchanges wait for nothing. ``efficiency`` is wall_s(1) / (2 wall_s(2)), the median over the
turns, and ``efficiency_cpu`` the same by ``cpu_most``, which other work on the machine disturbs less.

For more ranks the model T(N) = S + P L(N) + E ceil(p / N) / p says what balance and the serial part leave: P the CPU
seconds of local steps on one rank, L(N) the share of a round's rows that the rank with most has, E those of an
evaluation of p passes, S the rest of a round, all measured on one rank. It knows no exchanges and no waiting in steps.

``--set`` changes the job as it does for ``sflam train``, for example ``--set model.name=FOLDER``.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from common import parser, set_up, show

from sflam import config
from sflam.learn.evaluate import ROWS
from sflam.learn.world.world import dealt
from sflam.run.ranks import together
from sflam.run.start import start

TICKS = os.sysconf("SC_CLK_TCK")
MODELLED = (2, 4, 8)


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def worker(args: Namespace) -> None:
    """Train a round whenever a line comes in; answer each with what it took."""
    chosen = [f"learn.method={args.method}", f"seed={args.seed}", "learn.rounds=1000", "learn.device=cpu"]
    job = config.load(None, [*chosen, *args.overrides])
    with tempfile.TemporaryDirectory() as room, together(args.ranks) as world:
        run = start(job, Path(room) / "run", world=world)
        own = os.getpid()
        others = [int(pid) for pid in Path(f"/proc/{own}/task/{own}/children").read_text().split()]
        spent, steps = 0.0, run.fleet.local_steps

        def timed(*words: Any) -> Any:
            nonlocal spent
            began = time.process_time()
            found = steps(*words)
            spent = time.process_time() - began
            return found

        run.fleet.local_steps = timed  # type: ignore[method-assign]
        rounds = run.rounds()
        for _ in sys.stdin:
            wall, cpu = time.perf_counter(), [cpu_of(pid) for pid in (own, *others)]
            record = next(rounds)
            halves, assembly = run.assembly.halves, run.assembly
            assert halves is not None
            drawn = halves.drawn(record.round, record.participants)
            loads = {device: sum(map(len, batches)) for device, batches in drawn.items()}
            found = {
                "wall": time.perf_counter() - wall,
                "cpu": [cpu_of(pid) - before for pid, before in zip((own, *others), cpu, strict=True)],
                "steps": spent,
                "evaluating": record.evaluating_s / record.seconds,
                "passes": math.ceil(len(assembly.splits.test.labels) / ROWS),
                "loads": {
                    str(n): max(sum(loads[d] for d in own) for own in dealt(loads, n)) for n in MODELLED
                },
                "rows": sum(loads.values()),
            }
            print(json.dumps(found), flush=True)


def measured(args: Namespace, method: str) -> dict[int, list[dict[str, Any]]]:
    """Return ranks -> what each round but the first took; both take turns."""
    again = [word for override in args.overrides for word in ("--set", override)]
    running = {
        ranks: subprocess.Popen(
            [
                sys.executable,
                __file__,
                "--ranks",
                str(ranks),
                "--method",
                method,
                "--seed",
                str(args.seed),
                *again,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for ranks in (1, 2)
    }
    found: dict[int, list[dict[str, Any]]] = {ranks: [] for ranks in running}
    for turn in range(args.repeats + 1):
        for ranks, process in running.items():
            assert process.stdin and process.stdout
            process.stdin.write("go\n")
            process.stdin.flush()
            one = json.loads(process.stdout.readline())
            if turn:
                found[ranks].append(one)
    for process in running.values():
        process.communicate()
    return found


def modelled(one: list[dict[str, Any]], ranks: int) -> float:
    """Return the efficiency of so many ranks by the model."""
    cpu = statistics.median(sum(turn["cpu"]) for turn in one)
    steps = statistics.median(turn["steps"] for turn in one)
    evaluation = cpu * statistics.median(turn["evaluating"] for turn in one)
    share = statistics.median(turn["loads"][str(ranks)] / turn["rows"] for turn in one)
    passes = one[0]["passes"]
    rest = max(0.0, cpu - steps - evaluation)
    return cpu / ranks / (rest + steps * share + evaluation * math.ceil(passes / ranks) / passes)


def main() -> None:
    options = parser(__doc__, repeats=5)
    options.add_argument("--methods", nargs="+", default=["sflam", "sflam-mixed"])
    options.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    options.add_argument("--ranks", type=int, default=0, help="train on so many ranks, as lines come in")
    options.add_argument("--method", default="sflam", help="what to train then")
    args = options.parse_args()
    if args.ranks:
        worker(args)
        return
    set_up(args)
    rows, models = [], []
    for method in args.methods:
        found = measured(args, method)
        pairs = list(zip(found[1], found[2], strict=True))
        for ranks, turns in found.items():
            walls = [a["wall"] / b["wall"] / ranks for a, b in pairs] if ranks > 1 else [1.0]
            most = [max(a["cpu"]) / max(b["cpu"]) / ranks for a, b in pairs] if ranks > 1 else [1.0]
            rows.append(
                {
                    "method": method,
                    "ranks": ranks,
                    "wall_s": statistics.median(turn["wall"] for turn in turns),
                    "cpu_s": statistics.median(sum(turn["cpu"]) for turn in turns),
                    "cpu_most": statistics.median(max(turn["cpu"]) for turn in turns),
                    "efficiency": statistics.median(walls),
                    "efficiency_cpu": statistics.median(most),
                }
            )
        models += [{"method": method, "ranks": n, "efficiency": modelled(found[1], n)} for n in MODELLED]
    show(rows, as_json=args.json, title="measured")
    show(models, as_json=args.json, title="by the model, with a core for every rank")


if __name__ == "__main__":
    main()
