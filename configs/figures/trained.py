"""Train along one setting over a simulated network; write accuracy, time and energy as a CSV file and a picture.

    python configs/figures/trained.py JOB --key network.bandwidth_mhz --values 0.5,1,2 --methods optimal,equal \
        --seeds 2 --out DIR [--set SECTION.KEY=VALUE]

Every point is the mean over ``--seeds`` runs of the whole job, from the job's own seed on. Points that learn the same
are trained once and charged anew (``sflam replay``). A value of ``--key devices`` is a number of devices, all of which
are in the network too. Runs that cannot be planned leave their point out.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from setting_lines import Panel, draw, options, write

import sflam
from sflam import config
from sflam.errors import SflamError

if TYPE_CHECKING:
    from sflam.run.replay import Recording

DEVICES = "devices"
QUANTITIES = {
    "accuracy": "test accuracy",
    "virtual_s": "seconds of the run (log scale)",
    "energy_j": "joules of the run (log scale)",
}


def sets(key: str, value: str) -> list[str]:
    """Return the settings of one point."""
    if key == DEVICES:
        return [f"fleet.devices={value}", f"network.devices={value}"]
    return [f"{key}={value}"]


class Trained:
    """Runs that were trained, in a folder; others that learn the same are charged anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recordings: dict[str, Recording] = {}

    def result(self, job: config.Job) -> dict[str, Any]:
        """Return the final numbers of a job; raises SflamError where it cannot be run."""
        from sflam.run.replay import Recording, learning  # seconds, and a job that cannot be read needs none

        key = learning(job)
        if key in self.recordings:
            recording = self.recordings[key]
            try:
                return recording.result_of(recording.charged(job))
            except SflamError:  # its plans decide who trains what
                pass
        place = self.folder / f"{len(list(self.folder.iterdir()))}"
        result = asdict(sflam.train(job, place))
        self.recordings.setdefault(key, Recording(place))
        return result


def points(
    known: Trained,
    file: Path,
    given: Sequence[str],
    key: str,
    values: Sequence[str],
    methods: Sequence[str],
    seeds: int,
) -> list[dict[str, object]]:
    """Return a row per method and value, with the mean over seeds."""
    rows: list[dict[str, object]] = []
    for method in methods:
        for value in values:
            wanted = [*given, *sets(key, value), f'plan.method="{method}"', "network.simulate=true"]
            job = config.load(file, wanted)
            found: dict[str, list[float]] = {name: [] for name in QUANTITIES}
            try:
                for seed in range(seeds):
                    result = known.result(replace(job, seed=job.seed + seed))
                    for name, each in found.items():
                        each.append(float(result[name]))
            except SflamError as error:
                print(f"{method} at {key} = {value}: {error}", file=sys.stderr)
                continue
            means = {name: sum(each) / seeds for name, each in found.items()}
            rows.append({"method": method, key: float(value)} | means)
            shown = ", ".join(f"{name} {mean:.4g}" for name, mean in means.items())
            print(f"{method:>16} {value:>8} {shown}", file=sys.stderr)
    return rows


def main() -> None:
    """Read the command line."""
    given = options(__doc__, "seeds", 2).parse_args()
    values, methods = given.values.split(","), given.methods.split(",")
    with tempfile.TemporaryDirectory() as folder:
        rows = points(Trained(Path(folder)), given.job, given.set, given.key, values, methods, given.seeds)
    if not rows:
        raise SystemExit("nothing could be trained")
    panels = {name: Panel(title, title, name != "accuracy") for name, title in QUANTITIES.items()}
    figure = draw(rows, given.key, given.label, panels, f"trained, means over {given.seeds} seeds")
    write(rows, figure, given.out, "trained")


if __name__ == "__main__":
    main()
