"""Audits of two trained models on real data: what each cut and width gives away, beside accuracy, latency and energy.

    python benchmarks/audits.py sentences --model FOLDER --data FOLDER --out FOLDER [--set KEY=VALUE]
    python benchmarks/audits.py images --data FOLDER --out FOLDER [--set KEY=VALUE]

``sentences``: ``--model`` is a BERT encoder in Hugging Face format (measured with MiniLM-L6), ``--data`` holds parquet
files with the columns ``sentence`` and ``label`` (SST-2). ``images``: ``--data`` is a folder of parquet files or images
(CIFAR-10); the model is the ViT of ``images.py``, of random weights, of which every weight is trained. Ten devices,
Dirichlet 0.5. The run is kept in ``--out``: started again, it is not trained again. Everything is done by the commands
that a user has, ``sflam train`` and ``sflam audit``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import Any

from common import introduce, machine, show
from digits import COMMAND
from images import small_vit

SENTENCES = {
    "model.targets": '["query", "value"]',
    "model.cut": 1,
    "data.max_tokens": 64,
    "learn.rounds": 48,
    "learn.local_steps": 1,
    "learn.batch": 8,
}
IMAGES = {
    "model.trainable": "full",
    "model.cut": 1,
    "learn.rounds": 6,
    "learn.local_steps": 16,
    "learn.batch": 16,
    "learn.lr": 3e-4,
}
BOTH = {"learn.method": "sflam-mixed", "fleet.devices": 10, "data.alpha": 0.5, "learn.evaluate_every": 0}
CUTS, WIDTHS = {"sentences": "0,1,3,6", "images": "0,1,3,6"}, "2,4,8"


def command(*arguments: str) -> dict[str, Any]:
    """Return what a command prints with ``--json``."""
    done = subprocess.run([str(COMMAND), *arguments, "--json"], check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def found(
    kind: str, settings: dict[str, Any], overrides: list[str], out: Path, audit: list[str]
) -> list[dict[str, Any]]:
    """Train, unless it is done, and audit; return a row for every cut and width.

    Args:
        kind: ``sentences`` or ``images``.
        settings: of the job.
        overrides: more of them.
        out: for the run.
        audit: more options of ``sflam audit``.
    """
    run, began = out / kind, time.perf_counter()
    if not (run / "result.json").exists():
        given = [f"{key}={value}" for key, value in (BOTH | settings).items()]
        resumed = ["--resume", str(run)] if run.exists() else ["--out", str(run)]
        chosen = [] if run.exists() else [part for each in (*given, *overrides) for part in ("--set", each)]
        result = command("train", *chosen, *resumed)
        (run / "result.json").write_text(json.dumps(result))
    print(f"trained in {time.perf_counter() - began:.0f} s", flush=True)
    began = time.perf_counter()
    rows = command("audit", str(run), "--cuts", CUTS[kind], "--bits", WIDTHS, *audit)
    print(f"audited in {time.perf_counter() - began:.0f} s", flush=True)
    for line in rows["sentences"]:
        print(line)
    return [dict(row) for row in rows["cells"]]


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("kind", choices=list(CUTS))
    options.add_argument("--model", help="of sentences: a folder in Hugging Face format")
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    options.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
    args = options.parse_args()
    introduce(machine(), as_json=args.json)
    args.out.mkdir(parents=True, exist_ok=True)
    model = args.model
    if args.kind == "images":
        model = str(args.out / "model")
        small_vit(Path(model))
    elif not model:
        options.error("sentences need --model")
    settings = (SENTENCES if args.kind == "sentences" else IMAGES) | {
        "model.name": model,
        "data.name": args.data,
    }
    audit = ["--samples", "32"] if args.kind == "sentences" else ["--samples", "12"]
    rows = found(args.kind, settings, args.overrides, args.out, audit)
    show(rows, as_json=args.json, title=f"an audit of {args.kind}")


if __name__ == "__main__":
    main()
