"""What bits cost and save when chi is measured: ``python benchmarks/sensitivity.py [--json]``.

The bundled model on digits, simulated: bits planned with chi as training measures it, with chi = 0, and 4, 8 and 16
bits for everybody, everything else being equal. Accuracy, loss, bytes up, virtual time and energy of whole runs, over
seeds; chi of all devices before the first round and at the last measurement, with its 95 % interval; and the share of
the host's time that planning and measuring took, by the runs' own records.

``--set`` changes the job as it does for ``sflam simulate``, for example ``--set network.bandwidth_mhz=2``.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import parser, set_up, show

from sflam import config
from sflam.records.history import RoundRecord
from sflam.report.terminal.loop_lines import planning_share
from sflam.run import start as job

BITS = 'plan.optimize=["clock", "bits"]'
ARMS: dict[str, tuple[str, ...]] = {
    "chi measured": (BITS, "plan.measure_every=5"),
    "chi = 0": (BITS,),
    **{f"{bits} bits": (f"quant.bits_up={bits}",) for bits in (4, 8, 16)},
}


def ran(settings: Sequence[str]) -> list[RoundRecord]:
    """Return the records of one run."""
    with tempfile.TemporaryDirectory() as folder:
        run = job.start(config.load(None, ["network.simulate=true", *settings]), Path(folder) / "run")
        return list(run.rounds())


def chi(record: RoundRecord) -> str:
    """Return chi of all devices with its interval; - where it was not measured."""
    charge = record.charge
    if charge is None or not charge.sensitivity_error:
        return "-"
    return f"{math.fsum(charge.sensitivity):.2f} +- {math.hypot(*charge.sensitivity_error):.2f}"


def row(arm: str, runs: Sequence[list[RoundRecord]]) -> dict[str, Any]:
    """Return the means over the runs of one arm, and the spread of the accuracy."""
    every = [record for run in runs for record in run]
    accuracy = [run[-1].accuracy or 0.0 for run in runs]
    charges = [record.charge for record in every if record.charge is not None]

    def mean(name: str) -> float:
        return math.fsum(getattr(charge, name) for charge in charges) / len(runs)

    seconds = math.fsum(record.seconds for record in every)
    return {
        "bits": arm,
        "width": round(statistics.mean(q for charge in charges for q in charge.bits_up), 2),
        "accuracy_%": round(100 * statistics.mean(accuracy), 2),
        "+-": round(100 * statistics.stdev(accuracy), 2) if len(accuracy) > 1 else None,
        "test_loss": round(statistics.mean(run[-1].test_loss or 0.0 for run in runs), 4),
        "up_MB": round(sum(record.bytes_up for record in every) / len(runs) / 1e6, 2),
        "virtual_s": round(mean("seconds"), 3),
        "energy_J": round(mean("energy"), 4),
        "chi_first": chi(runs[0][0]),
        "chi_last": chi(runs[0][-1]),
        "planning_%": round(100 * planning_share(every), 2),
        "measuring_%": round(100 * math.fsum(record.measuring_s for record in every) / seconds, 1),
    }


def main() -> None:
    """Run every arm on every seed, and print a row each."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--rounds", type=int, default=10)
    options.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    args = options.parse_args()
    set_up(args)
    rows = []
    for arm, settings in ARMS.items():
        runs = [
            ran([f"seed={seed}", f"learn.rounds={args.rounds}", *settings, *args.overrides])
            for seed in range(args.seed, args.seed + args.repeats)
        ]
        rows.append(row(arm, runs))
    show(rows, as_json=args.json, title=f"{args.repeats} seeds, {args.rounds} rounds; chi of the first seed")


if __name__ == "__main__":
    main()
