"""What ``learn.cache`` saves and costs: ``python benchmarks/caching.py [--bits 2 4 8] [--seeds 0 1 2] [--json]``.

The default job with only the frozen embedding on the devices (cut 0), where no gradient comes back. A server that keeps
activations also keeps their rounding noise: what that costs is the difference in accuracy to the other two.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from common import introduce, machine, show

import sflam

CACHES = ("off", "device", "server")


def run(cache: str, bits: int, seed: int, overrides: list[str]) -> sflam.Result:
    """Return what one run says of itself."""
    settings = [f"seed={seed}", "model.cut=0", f"learn.cache={cache}", f"quant.bits_up={bits}"]
    with tempfile.TemporaryDirectory() as folder:
        job = sflam.load(None, [*settings, "learn.evaluate_every=0", *overrides])
        return sflam.train(job, Path(folder) / "run")


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--bits", type=int, nargs="+", default=[2, 4, 8])
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    options.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
    args = options.parse_args()
    introduce(machine(), as_json=args.json)
    rows: list[dict[str, Any]] = []
    for bits in args.bits:
        found = {cache: [run(cache, bits, seed, args.overrides) for seed in args.seeds] for cache in CACHES}
        for cache, results in found.items():
            accuracies = [result.accuracy for result in results]
            rows.append(
                {
                    "bits up": bits,
                    "cache": cache,
                    "accuracy": round(statistics.mean(accuracies), 4),
                    "least": round(min(accuracies), 4),
                    "up MB": round(statistics.mean(result.bytes_up for result in results) / 1e6, 2),
                    "saved MB": round(statistics.mean(result.bytes_saved for result in results) / 1e6, 2),
                    "down MB": round(statistics.mean(result.bytes_down for result in results) / 1e6, 2),
                }
            )
    show(rows, as_json=args.json, title="digits, cut 0, ten rounds, means over seeds")


if __name__ == "__main__":
    main()
