"""Plan along one setting with several methods; write the objective, time and energy as a CSV file and a picture.

    python configs/figures/sweep.py JOB --key network.max_power_dbm --values 5,11,17,23 --methods optimal,bcd,equal \
        --draws 5 --out DIR [--set SECTION.KEY=VALUE]

Every point is the mean over ``--draws`` seeds, from the job's own on. Methods that cannot plan a point leave it out.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from sflam import config
from sflam.errors import AllocationError, ConfigError
from sflam.planner import cell as planning
from sflam.report.charts import figure as charts
from sflam.report.charts.lines import Line, line_panel
from sflam.report.charts.style import looks_of

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


def draw(rows: list[dict[str, object]], key: str, label: str, draws: int) -> Figure:
    """Return a panel per quantity, a line per method."""
    looks = looks_of(list(dict.fromkeys(str(row["method"]) for row in rows)))
    panels = []
    for name, title in QUANTITIES.items():
        lines = [
            Line(
                name=each, look=look, points=[(row[key], row[name]) for row in rows if row["method"] == each]
            )
            for each, look in looks.items()
        ]
        upward = f"{title} (log scale)"
        panels.append(
            line_panel(title, lines, across=label or key, upward=upward, log_y=True, from_zero=False)
        )
    return charts.draw(panels, title=f"means over {draws} draws")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", type=Path)
    for name in ("key", "values", "methods"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--label", default="")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--out", type=Path, required=True)
    told = parser.parse_args()
    rows = points(told.job, told.set, told.key, told.values.split(","), told.methods.split(","), told.draws)
    if not rows:
        raise SystemExit("nothing could be planned")
    told.out.mkdir(parents=True, exist_ok=True)
    with (told.out / "sweep.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    charts.save(draw(rows, told.key, told.label, told.draws), told.out / "sweep.png")
    print(f"wrote sweep.csv, sweep.png to {told.out}")


if __name__ == "__main__":
    main()
