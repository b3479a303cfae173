"""Plan along one setting with several methods; write the objective, time and energy as a CSV file and a picture.

    python configs/figures/sweep.py JOB --key network.max_power_dbm --values 5,11,17,23 --methods optimal,bcd,equal \
        --draws 5 --out DIR [--set SECTION.KEY=VALUE]

Every point is the mean over ``--draws`` seeds, from the job's own on. Methods that cannot plan a point leave it out.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

from setting_lines import Panel, draw, options, write

from sflam import config
from sflam.errors import AllocationError, ConfigError
from sflam.planner import cell as planning

QUANTITIES = {"objective": "objective", "latency": "seconds of a round", "energy": "joules of a round"}


def mean(values: list[float]) -> float:
    """Return the mean; nan of nothing, and where a plan is infeasible."""
    return sum(values) / len(values) if values and all(map(math.isfinite, values)) else math.nan


def points(
    file: Path, said: list[str], key: str, values: list[str], methods: list[str], draws: int
) -> list[dict[str, object]]:
    """Return a row per method and value."""
    rows: list[dict[str, object]] = []
    for method in methods:
        for value in values:
            one = config.load(file, [*said, f"{key}={value}", f'plan.method="{method}"'])
            try:
                plans = [planning.decide(replace(one, seed=one.seed + draw)).plan for draw in range(draws)]
            except (AllocationError, ConfigError) as error:
                print(f"{method} at {key} = {value}: {error}", file=sys.stderr)
                continue
            told = {name: mean([getattr(plan, name) for plan in plans]) for name in QUANTITIES}
            rows.append({"method": method, key: float(value)} | told)
            print(f"{method:>16} {value:>8} objective {told['objective']:.6g}", file=sys.stderr)
    return rows


def main() -> None:
    """Read the command line."""
    told = options(__doc__, "draws", 5).parse_args()
    rows = points(told.job, told.set, told.key, told.values.split(","), told.methods.split(","), told.draws)
    if not rows:
        raise SystemExit("nothing could be planned")
    panels = {name: Panel(title, f"{title} (log scale)", True) for name, title in QUANTITIES.items()}
    figure = draw(rows, told.key, told.label, panels, f"means over {told.draws} draws")
    write(rows, figure, told.out, "sweep")


if __name__ == "__main__":
    main()
