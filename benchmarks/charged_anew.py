"""What charging a run anew costs beside simulating it: ``python benchmarks/charged_anew.py [--variants 100] [--json]``.

The default job is simulated once, and its rounds charged anew by plans of as many weights of time against energy, each
as ``sflam replay`` and ``sflam compare --weights`` do it, in one process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from common import introduce, machine, show

import sflam
from sflam.run.replay import Recording


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--variants", type=int, default=100, help="weights, from 0.01 to 0.99")
    options.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    options.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
    args = options.parse_args()
    introduce(machine(), as_json=args.json)
    with tempfile.TemporaryDirectory() as folder:
        began, cpu = time.perf_counter(), time.process_time()
        sflam.train(sflam.load(None, ["network.simulate=true", *args.overrides]), Path(folder) / "run")
        rows = [{"what": "one run, simulated", "wall_s": time.perf_counter() - began}]
        rows[0]["cpu_s"] = time.process_time() - cpu
        recording = Recording(Path(folder) / "run")
        weights = [0.01 + 0.98 * number / max(1, args.variants - 1) for number in range(args.variants)]
        jobs = [recording.job_with([f"plan.latency_weight={weight}"]) for weight in weights]
        began, cpu = time.perf_counter(), time.process_time()
        for job in jobs:
            recording.charged(job)
        wall, used = time.perf_counter() - began, time.process_time() - cpu
        rows.append({"what": f"charged anew, {args.variants} weights", "wall_s": wall, "cpu_s": used})
    show([{key: round(v, 2) if isinstance(v, float) else v for key, v in row.items()} for row in rows],
         as_json=args.json, title="the default job")  # fmt: skip


if __name__ == "__main__":
    main()
