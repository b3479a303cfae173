"""What robust averages (``learn.robust``) keep where devices of a fleet lie, and what they cost where none does.

    python benchmarks/robust.py [--kinds NAME ...] [--seeds N ...] [--set KEY=VALUE]

Every run is the bundled job in one process with none of the limits of a served run. Ten devices; of these

    honest     none lies
    flip       one or two learn from labels that are all changed to another class
    scaled     one or two send their change of the adapters times -10

The table has the last accuracy, the mean over seeds and the least.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from common import introduce, machine, show
from torch import Tensor

import sflam
from sflam.learn.averaging import Averaged, Averaging
from sflam.learn.settings.learn import ROBUST
from sflam.model.adapters import State

SCALE = -10.0
CASES = {"honest": (), "flip 1": (0,), "flip 2": (0, 1), "scaled 1": (0,), "scaled 2": (0, 1)}


def accuracy(kind: str, case: str, seed: int, overrides: list[str]) -> float:
    """Return the accuracy of one run."""
    liars = CASES[case]
    settings = [f"learn.robust={kind}", f"seed={seed}", *overrides]
    if case.startswith("flip"):
        settings += ["data.flipped=1", f"data.flipped_devices={list(liars)}"]
    call = Averaging.__call__

    def lied(
        averaging: Averaging,
        start: Mapping[str, Tensor],
        states: Mapping[int, State],
        *others: Any,
        **named: Any,
    ) -> Averaged:
        if case.startswith("scaled"):
            states = {
                device: {name: start[name] + SCALE * (tensor - start[name]) for name, tensor in state.items()}
                if device in liars
                else state
                for device, state in states.items()
            }
        return call(averaging, start, states, *others, **named)

    with tempfile.TemporaryDirectory() as folder, patch.object(Averaging, "__call__", lied):
        try:
            result = sflam.train(sflam.load(None, settings), Path(folder) / "run")
        except sflam.SflamError:  # what was sent made numbers that nothing can be learned from
            return 0.0
    return float(result.accuracy or 0.0)


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--kinds", nargs="+", default=list(ROBUST), choices=ROBUST)
    options.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    options.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
    args = options.parse_args()
    introduce(machine(), as_json=args.json)
    rows = []
    for kind in args.kinds:
        row: dict[str, Any] = {"learn.robust": kind}
        for case in args.cases:
            found = [accuracy(kind, case, seed, args.overrides) for seed in args.seeds]
            row[case] = f"{sum(found) / len(found):.3f} ({min(found):.3f})"
        rows.append(row)
    show(rows, as_json=args.json, title="last accuracy, mean over seeds (least)")


if __name__ == "__main__":
    main()
