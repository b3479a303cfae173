"""The memory of ``model.trunk_weights``: ``python benchmarks/trunk_weights.py [--blocks 24] [--json]``, on Linux.

A random ViT of ``--blocks`` blocks of ``--width`` is written to a folder, and one round of a small job is trained by
``sflam train`` with its frozen weights in memory, in their file, and over two and four ranks of one thread each; with
``--bfloat16`` the file is of that type and the job of float32, so that a block is converted whenever it runs. Of every
process: the most of its own pages (RssAnon, sampled), and of pages of files (RssFile), which the system can drop; CPU
seconds of all processes together, their start included.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import parser, set_up, show
from transformers import ViTConfig, ViTForImageClassification

from sflam.model.backbone import quiet

PAUSE_S = 0.02
KINDS = ("RssAnon", "RssFile")


def children(pid: int) -> list[int]:
    """Return a process and those it started."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *map(int, found)]


def watched(command: list[str]) -> tuple[dict[int, dict[str, int]], float]:
    """Run a command; return the most bytes of each kind of its processes, and the CPU seconds of all."""
    most: dict[int, dict[str, int]] = {}
    before = os.times()
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while running.poll() is None:
        for pid in children(running.pid):
            try:
                text = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            for kind in KINDS:
                if found := re.search(rf"{kind}:\s+(\d+)", text):
                    own = most.setdefault(pid, dict.fromkeys(KINDS, 0))
                    own[kind] = max(own[kind], int(found[1]) * 1024)
        time.sleep(PAUSE_S)
    if running.returncode:
        raise SystemExit(running.stderr.read() if running.stderr else "")
    after = os.times()
    return most, after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    options = parser(__doc__, repeats=1, seconds=0)
    options.add_argument("--blocks", type=int, default=24)
    options.add_argument("--width", type=int, default=1024)
    options.add_argument("--bfloat16", action="store_true", help="the type of the file")
    args = options.parse_args()
    set_up(args)
    sizes: dict[str, Any] = {"hidden_size": args.width, "num_hidden_layers": args.blocks}
    sizes |= {"intermediate_size": 4 * args.width, "num_attention_heads": args.width // 64}
    found = []
    with tempfile.TemporaryDirectory() as room:
        config = ViTConfig(**sizes, image_size=64, patch_size=32, num_channels=1, num_labels=10)
        torch.manual_seed(args.seed)
        model = ViTForImageClassification(config)
        numbers = sum(p.numel() for p in model.parameters())
        with quiet():
            model.to(torch.bfloat16 if args.bfloat16 else torch.float32).save_pretrained(f"{room}/model")
        del model
        job = {"model.name": f"{room}/model", "model.cut": 1, "model.rank": 4, "learn.rounds": 1}
        job |= {"learn.local_steps": 2, "learn.batch": 2, "fleet.devices": 4, "learn.evaluate_samples": 16}
        for where, ranks in (("memory", 1), ("file", 1), ("memory", 2), ("ranks", 2), ("ranks", 4)):
            command = [sys.executable, "-m", "sflam", "train", "--out", f"{room}/{where}-{ranks}"]
            command += ["--ranks", str(ranks)]
            for key, value in (job | {"model.trunk_weights": where}).items():
                command += ["--set", f"{key}={value}"]
            most, cpu = watched(command)
            own, files = (max(each[kind] for each in most.values()) for kind in KINDS)
            line = {
                "weights": where,
                "ranks": ranks,
                "own_mb": round(own / 1e6),
                "files_mb": round(files / 1e6),
            }
            found.append(line | {"cpu_s": round(cpu, 1)})
    title = f"{args.blocks} blocks of {args.width}, {4e-6 * numbers:.0f} MB in float32; the process with most"
    show(found, as_json=args.json, title=title)


if __name__ == "__main__":
    main()
