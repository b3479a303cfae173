"""A small ViT on image files, as a user runs it: ``python benchmarks/images.py --data FOLDER``.

``--data`` is a folder of parquet files or images (measured with CIFAR-10). The model is a ViT of random weights, width
192, six blocks, 32 x 32 pixels in patches of 4, written to a temporary folder: what is measured is images per second
and memory, not accuracy. Every run is a fresh ``sflam train``; methods take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import transformers
from common import introduce, machine, show
from digits import COMMAND, RSS_UNIT

STEPS = 4


def small_vit(folder: Path) -> None:
    """Write a ViT of random weights in Hugging Face format."""
    config = transformers.ViTConfig(
        hidden_size=192,
        num_hidden_layers=6,
        num_attention_heads=3,
        intermediate_size=768,
        image_size=32,
        patch_size=4,
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)


def run(method: str, model: Path, data: Path, overrides: list[str]) -> dict[str, Any]:
    """Return what one command reports and what it costs."""
    settings = {
        "learn.method": method,
        "model.name": model,
        "data.name": data,
        "quant.bits_up": 4,
        "quant.bits_down": 4,
        "learn.rounds": 2,
        "learn.local_steps": STEPS,
        "learn.evaluate_every": 0,
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [str(COMMAND), "train", "--json", "--out", f"{folder}/run"]
        for setting in [*(f"{key}={value}" for key, value in settings.items()), *overrides]:
            command += ["--set", setting]
        began = time.perf_counter()
        with Path(folder, "output").open("w+") as output:
            child = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(child.pid, 0)
            wall = time.perf_counter() - began
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode:
                raise SystemExit(f"{' '.join(command)} ended with exit code {child.returncode}")
            output.seek(0)
            result = json.loads(output.read().splitlines()[-1])
        first = json.loads(Path(folder, "run", "history.jsonl").read_text().splitlines()[1])
    return {
        "method": method,
        "images": result["samples"],
        # The last round includes the evaluation of the whole test part; the first does not.
        "images/s in round 1": round(first["samples"] / first["seconds"], 1),
        "wall_s": round(wall, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": round(usage.ru_maxrss * RSS_UNIT / 1e6),
        "sent_mb": round((result["bytes_up"] + result["bytes_down"]) / 1e6, 2),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--methods", nargs="+", default=["sflam", "sfl-v1", "central"])
    options.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    options.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
    args = options.parse_args()
    introduce(machine() | {"python": sys.version.split()[0]}, as_json=args.json)
    with tempfile.TemporaryDirectory() as folder:
        small_vit(Path(folder))
        found = [run(method, Path(folder), args.data, args.overrides) for method in args.methods]
    show(found, as_json=args.json, title="a ViT of width 192 and six blocks, 32 x 32 pixels")


if __name__ == "__main__":
    main()
