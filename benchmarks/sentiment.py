"""A pretrained MiniLM on SST-2: accuracy against skew, bits and codec, with paired differences.

    python benchmarks/sentiment.py --model FOLDER --data FOLDER --out FOLDER [--only lr|grid|seeds] [--table]

``--model`` is a BERT encoder in Hugging Face format (measured with MiniLM-L6, hidden size 384), ``--data`` holds
``train.parquet``, ``validation.parquet`` and ``test.parquet`` with the columns ``sentence`` and ``label``. Ten devices,
cut 1, LoRA of rank 8 on queries and values; every cell sees the same number of samples. The held-out part is
validation and test pooled. Every cell is a run folder under ``--out``: started again, finished cells are not repeated
and the half-done one resumes. ``--table`` only prints what is there.

Central and federated training choose their learning rates from one grid, 3e-4 to 1e-2, on validation alone, each
tried until the best is not the last on its side; all federated cells have the rate of four uniform bits.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import introduce, machine, show, trained

import sflam

RATES = {"central": (3e-4, 1e-3, 3e-3, 5e-3), "sflam": (1e-3, 3e-3, 5e-3, 1e-2)}
ALPHAS = (0.5, 0.1, 1.0)
BITS = (4, 32, 8, 2)
SEEDS = (0, 1, 2)
VALIDATION = 872
ROUNDS, STEPS, BATCH, DEVICES = 96, 1, 8, 10


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training run."""

    method: str
    scheme: str = "identity"
    bits: int = 32
    alpha: float = 0.5
    seed: int = 0
    lr: float = 0.0

    @property
    def name(self) -> str:
        """Name of its folder."""
        kind = self.method if self.method == "central" else f"{self.scheme}{self.bits}-alpha{self.alpha:g}"
        return f"{kind}-lr{self.lr:g}-seed{self.seed}"


def pooled(data: Path, out: Path) -> Path:
    """Write the training part, and validation and test as one, in that order."""
    folder = out / "data"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pq.read_table(data / "train.parquet"), folder / "train.parquet")
    held_out = [pq.read_table(data / f"{split}.parquet") for split in ("validation", "test")]
    pq.write_table(pa.concat_tables(held_out), folder / "test.parquet")
    return folder


def job_of(cell: Cell, model: Path, data: Path) -> sflam.Job:
    """Return the job of a cell; central training takes as many steps as all devices together."""
    settings = {
        "seed": cell.seed,
        "model.name": model,
        "model.cut": 1,
        "model.targets": '["query", "value"]',
        "data.name": data,
        "data.alpha": cell.alpha,
        "data.minimum": BATCH,
        "data.buckets": "true",
        "fleet.devices": DEVICES,
        "quant.scheme": cell.scheme,
        "quant.bits_up": min(cell.bits, 16),
        "quant.bits_down": min(cell.bits, 16),
        "learn.method": cell.method,
        "learn.rounds": ROUNDS,
        "learn.local_steps": STEPS,
        "learn.batch": BATCH,
        "learn.lr": cell.lr,
        "learn.state": "keep",
        "learn.evaluate_every": 0,
    }
    return sflam.load(None, [f"{key}={value}" for key, value in settings.items()])


def measure(cell: Cell, model: Path, data: Path, out: Path) -> dict[str, Any]:
    """Return the result of a cell, from its file where it is finished."""
    file, folder = out / f"{cell.name}.json", out / "runs" / cell.name
    if file.exists():
        return dict(json.loads(file.read_text()))
    began = time.process_time()
    result = trained(job_of(cell, model, data), folder)
    said = sflam.predict(folder)
    assert said.labels is not None
    right = said.predicted == said.labels
    found = dataclasses.asdict(cell) | {
        "name": cell.name,
        "samples": result.samples,
        "bytes": result.bytes_up + result.bytes_down,
        "cpu_s": round(time.process_time() - began, 1),
        "validation": float(right[:VALIDATION].mean()),
        "test": float(right[VALIDATION:].mean()),
        "pooled": float(right.mean()),
        "right": "".join("01"[int(hit)] for hit in right),
    }
    file.write_text(json.dumps(found))
    return found


def rates() -> list[Cell]:
    """Return the cells that choose the learning rates."""
    kinds = {"central": Cell("central"), "sflam": Cell("sflam", "uniform", 4)}
    return [dataclasses.replace(kinds[method], lr=lr) for method, some in RATES.items() for lr in some]


def best_rate(found: list[dict[str, Any]], method: str) -> float:
    """Return a method's rate with the best validation accuracy."""
    return float(
        max((one for one in found if one["method"] == method), key=lambda one: one["validation"])["lr"]
    )


def grid(lr: float) -> list[Cell]:
    """Return the cells of one seed: skew x bits x codec; 32 bits need no codec."""
    cells = []
    for bits, alpha in itertools.product(BITS, ALPHAS):
        schemes = ("identity",) if bits == 32 else ("uniform", "rotated")
        cells += [Cell("sflam", scheme, bits, alpha, lr=lr) for scheme in schemes]
    return cells


def seeds(lr: float, central: float) -> list[Cell]:
    """Return the cells of the further seeds."""
    kinds = (
        Cell("central", lr=central),
        Cell("sflam", "uniform", 4, lr=lr),
        Cell("sflam", "rotated", 4, lr=lr),
    )
    return [dataclasses.replace(kind, seed=seed) for seed in SEEDS for kind in kinds]


def paired(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> tuple[float, float]:
    """Return the mean difference in points over the same samples, and its standard error.

    Runs of the same seed are paired and averaged per sample first: the error is that of the sample of sentences.
    """
    hits = [np.array([[int(bit) for bit in run["right"]] for run in runs]).mean(0) for runs in (one, other)]
    difference = 100 * (hits[0] - hits[1])
    return float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(len(difference)))


def tables(cells: list[dict[str, Any]], lr: float, rate: float, *, as_json: bool) -> None:
    """Print the grid, and the differences from central training, at ``rate``, with their errors."""
    central = [one for one in cells if one["method"] == "central" and one["lr"] == rate]
    rows = []
    for one in cells:
        row = {key: one[key] for key in ("name", "samples", "validation", "test", "pooled", "cpu_s")}
        same = [other for other in central if other["seed"] == one["seed"]]
        if same and one["method"] != "central":
            mean, error = paired([one], same)
            row |= {"minus_central": f"{mean:+.2f} +- {error:.2f}"}
        rows.append({"minus_central": ""} | row | {"mb": round(one["bytes"] / 1e6, 1)})
    show(rows, as_json=as_json, title=f"accuracy; learning rates: federated {lr:g}, central {rate:g}")
    summary = []
    for scheme in ("uniform", "rotated"):
        runs = [
            one
            for one in cells
            if (one["scheme"], one["bits"], one["alpha"], one["lr"]) == (scheme, 4, 0.5, lr)
        ]
        same = [other for run in runs for other in central if other["seed"] == run["seed"]]
        if runs and len(same) == len(runs):
            mean, error = paired(runs, same)
            summary.append(
                {
                    "against central": f"{scheme}, 4 bits, alpha 0.5",
                    "seeds": len(runs),
                    "mean": round(float(np.mean([run["pooled"] for run in runs])), 4),
                    "central": round(float(np.mean([run["pooled"] for run in same])), 4),
                    "difference": f"{mean:+.2f} +- {error:.2f} points",
                }
            )
    show(summary, as_json=as_json, title="validation and test pooled, paired by sentence")


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("model", "data", "out"):
        options.add_argument(f"--{name}", type=Path, required=True)
    options.add_argument("--only", choices=["lr", "grid", "seeds"])
    options.add_argument("--table", action="store_true", help="run nothing, print what is there")
    options.add_argument("--json", action="store_true", help="one JSON object per line instead of tables")
    args = options.parse_args()
    introduce(machine(), as_json=args.json)
    data = pooled(args.data, args.out)

    def all_of(cells: list[Cell]) -> list[dict[str, Any]]:
        if args.table:
            cells = [cell for cell in cells if (args.out / f"{cell.name}.json").exists()]
        found = []
        for cell in cells:
            one = measure(cell, args.model, data, args.out)
            print(f"{cell.name}: {one['pooled']:.4f} ({one['cpu_s']} CPU s)", flush=True)
            found.append(one)
        return found

    found = all_of(rates())
    lr, rate = best_rate(found, "sflam"), best_rate(found, "central")
    if args.only != "lr":
        more = (seeds(lr, rate) if args.only != "grid" else []) + (grid(lr) if args.only != "seeds" else [])
        found += all_of([cell for cell in dict.fromkeys(more) if cell.name not in {o["name"] for o in found}])
    tables(found, lr, rate, as_json=args.json)


if __name__ == "__main__":
    main()
