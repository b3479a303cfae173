"""What bits cost and save when chi is measured: ``python benchmarks/sensitivity.py [--json]``.

The bundled model on digits, simulated: bits planned with chi as training measures it, from 2 bits on and from 1 bit on
(there with and without the floor by the bias of gradients), with chi = 0, and 2, 4, 8 and 16 bits for everybody,
everything else being equal. Accuracy, loss, bytes up, virtual time and energy of whole runs, over seeds; accuracy less
that of 8 bits, paired by seed, with its 95 % interval (Student's t); chi of all devices before the first round and at
the last measurement, with its interval; and the share of the host's time that planning and measuring took, by the
runs' own records. ``--arms`` names those to run.

``--set`` changes the job as it does for ``sflam simulate``, for example ``--set network.bandwidth_mhz=2``, and so can
name another model and other data. Every finished run is a line of its own on stderr.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import parser, set_up, show
from scipy.special import stdtrit

from sflam import config
from sflam.records.history import RoundRecord
from sflam.report.terminal.loop_lines import planning_share
from sflam.run import start as job

BITS = 'plan.optimize=["clock", "bits"]'
MEASURED = "plan.measure_every=5"
BASE = "8 bits"
ARMS: dict[str, tuple[str, ...]] = {
    BASE: ("quant.bits_up=8",),
    "chi measured": (BITS, MEASURED),
    "from 1 bit": (BITS, MEASURED, "plan.bits_least=1"),
    "from 1 bit, no floor": (BITS, MEASURED, "plan.bits_least=1", "plan.bias_share=0"),
    "chi = 0": (BITS,),
    **{f"{bits} bits": (f"quant.bits_up={bits}",) for bits in (2, 4, 16)},
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


def accuracies(runs: Sequence[list[RoundRecord]]) -> list[float]:
    """Return the accuracy of each run after its last round."""
    return [run[-1].accuracy or 0.0 for run in runs]


def paired(arm: Sequence[float], base: Sequence[float]) -> str:
    """Return the mean difference of accuracies, in points, with its 95 % interval."""
    points = [100 * (mine - other) for mine, other in zip(arm, base, strict=True)]
    if len(points) < 2:
        return f"{points[0]:+.2f}"
    half = stdtrit(len(points) - 1, 0.975) * statistics.stdev(points) / math.sqrt(len(points))
    return f"{statistics.mean(points):+.2f} +- {half:.2f}"


def row(arm: str, runs: Sequence[list[RoundRecord]], base: Sequence[float]) -> dict[str, Any]:
    """Return the means over the runs of one arm, and the spread of the accuracy; ``base`` is that of 8 bits."""
    every = [record for run in runs for record in run]
    accuracy = accuracies(runs)
    charges = [record.charge for record in every if record.charge is not None]

    def mean(name: str) -> float:
        return math.fsum(getattr(charge, name) for charge in charges) / len(runs)

    seconds = math.fsum(record.seconds for record in every)
    return {
        "bits": arm,
        "width": round(statistics.mean(q for charge in charges for q in charge.bits_up), 2),
        "accuracy_%": round(100 * statistics.mean(accuracy), 2),
        "+-": round(100 * statistics.stdev(accuracy), 2) if len(accuracy) > 1 else None,
        "less_8_bits": paired(accuracy, base) if base else "-",
        "least": min(q for charge in charges for q in charge.bits_up),
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
    options.add_argument("--every", type=int, default=5, help="rounds between measurements of chi")
    options.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    options.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS))
    args = options.parse_args()
    set_up(args)
    rows: list[dict[str, Any]] = []
    base: list[float] = []
    for arm, settings in ARMS.items():
        if arm not in args.arms:
            continue
        runs = []
        for seed in range(args.seed, args.seed + args.repeats):
            asked = [f"plan.measure_every={args.every}" if each == MEASURED else each for each in settings]
            runs.append(ran([f"seed={seed}", f"learn.rounds={args.rounds}", *asked, *args.overrides]))
            took = math.fsum(record.seconds for record in runs[-1])
            print(
                f"{arm}, seed {seed}: {accuracies(runs[-1:])[0]:.4f}, {took:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        base = accuracies(runs) if arm == BASE else base
        rows.append(row(arm, runs, base))
    show(rows, as_json=args.json, title=f"{args.repeats} seeds, {args.rounds} rounds; chi of the first seed")


if __name__ == "__main__":
    main()
