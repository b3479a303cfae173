"""The default job, start to finish, as a user runs it: ``python benchmarks/digits.py [--all-methods] [--json]``.

Every run is a fresh ``sflam train --json --set seed=S`` into a folder that is thrown away. Time is that of the whole
command, imports and the run folder included; CPU time is that of the child and all its threads; memory is its
largest resident set. ``--all-methods`` adds SFL-V1, SFL-V2 and central training; methods take turns within a seed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import introduce, machine, show

METHODS = ("sflam", "sfl-v1", "sfl-v2", "central")
COMMAND = Path(sys.executable).with_name("sflam")
# ru_maxrss is in kB on Linux and in bytes on macOS.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def run(method: str, seed: int, threads: int, overrides: list[str]) -> dict[str, Any]:
    """Return what one command reports and what it costs."""
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "output").open("w+") as output:
        command = [str(COMMAND), "train", "--json", "--out", str(Path(folder) / "run")]
        for setting in (f"seed={seed}", f"learn.method={method}", *overrides):
            command += ["--set", setting]
        environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
        began = time.perf_counter()
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"{' '.join(command)} ended with exit code {child.returncode}")
        output.seek(0)
        result = json.loads(output.read().splitlines()[-1])
    return {
        "method": method,
        "seed": seed,
        "accuracy": result["accuracy"],
        "loss": round(result["loss"], 4),
        "wall_s": round(wall, 2),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "in_rounds_s": round(result["seconds"], 2),
        "peak_mb": round(usage.ru_maxrss * RSS_UNIT / 1e6, 1),
        "sent_mb": round((result["bytes_up"] + result["bytes_down"]) / 1e6, 2),
    }


def summary(method: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and spread over the seeds of one method."""
    accuracies = [one["accuracy"] for one in runs]
    medians = {key: statistics.median(one[key] for one in runs) for key in ("wall_s", "cpu_s", "in_rounds_s")}
    return {
        "method": method,
        "seeds": len(runs),
        "mean": round(statistics.mean(accuracies), 4),
        "deviation": round(statistics.stdev(accuracies), 4) if len(runs) > 1 else 0.0,
        "least": round(min(accuracies), 4),
        "most": round(max(accuracies), 4),
        **medians,
        "peak_mb": max(one["peak_mb"] for one in runs),
        "sent_mb": round(statistics.mean(one["sent_mb"] for one in runs), 2),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--all-methods", action="store_true")
    options.add_argument("--threads", type=int, default=0, help="threads of torch; 0 leaves its own choice")
    options.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    options.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
    args = options.parse_args()
    methods = METHODS if args.all_methods else METHODS[:1]
    introduce(machine() | {"threads": args.threads or "default"}, as_json=args.json)
    found = []
    for seed in args.seeds:
        for method in methods:
            found.append(run(method, seed, args.threads, args.overrides))
            if args.json:
                show(found[-1:], as_json=True)
    if not args.json:
        show(found, as_json=False, title="runs")
    summaries = [summary(method, [one for one in found if one["method"] == method]) for method in methods]
    show(summaries, as_json=args.json, title="accuracy over seeds; medians of times, largest memory")


if __name__ == "__main__":
    main()
