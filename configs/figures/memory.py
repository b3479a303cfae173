"""The memory of a device at every cut, for some batch sizes, by the one model of memory; a CSV file and a picture.

python configs/figures/memory.py JOB --batches 8,32,128 --out DIR [--set SECTION.KEY=VALUE]
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path

from sflam import config
from sflam.planner import cell as planning
from sflam.report.charts import figure as charts
from sflam.report.charts.lines import Line, line_panel
from sflam.report.charts.style import looks_of


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", type=Path)
    parser.add_argument("--batches", default="8,32,128")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    job = config.load(given.job, given.set)
    rows = []
    for batch in map(int, given.batches.split(",")):
        work = planning.workload_of(replace(job, learn=replace(job.learn, batch=batch)))
        rows += [(batch, cut, need / 1e6) for cut, need in enumerate(work.device_memory)]
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "memory.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("batch", "cut", "megabytes"))
        writer.writerows(rows)
    looks = looks_of([f"batch {batch}" for batch in dict.fromkeys(row[0] for row in rows)])
    lines = [
        Line(name=name, look=look, points=[(cut, need) for own, cut, need in rows if f"batch {own}" == name])
        for name, look in looks.items()
    ]
    upward = "MB of a device (log scale)"
    panel = line_panel(
        f"memory of a device, {work.name}", lines, across="blocks on the device", upward=upward, log_y=True
    )
    charts.save(charts.draw([panel], size=(7.0, 4.6)), given.out / "memory.png")
    print(f"wrote memory.csv, memory.png to {given.out}")


if __name__ == "__main__":
    main()
