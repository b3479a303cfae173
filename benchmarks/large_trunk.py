"""A step of devices over a large trunk against training all of it: ``python benchmarks/large_trunk.py [--json]``.

A random ViT-B/32, cut 0, LoRA on every linear layer; a step is one mini-batch of each device. Runs, in turns:

    full       plain torch on the unsplit model, every weight trained, the mini-batches one after another
    frozen     what no adapter can save: forward, and backward by input alone, of the frozen model in the same chunks
    sflam      ``sflam``: embedding on the devices, real bodies of ``--bits`` bits each way, the server in chunks
    canonical  the same with ``learn.canonical``
    one pass   the same as ``sflam`` without chunks (only with ``--whole``: it takes several GB)

CPU time is per image; ``ratio`` is over ``full``, ``over frozen`` over ``frozen``. The peak is VmHWM of a process of
its own that takes two steps of that run.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import CLASSES, Shape, in_turns, minibatch, parser, ratio, set_up, show
from transformers import ViTConfig, ViTForImageClassification

from sflam.learn.chunks import PassBudget
from sflam.learn.device import Devices
from sflam.learn.exchange import Exchange
from sflam.learn.fit import built_step
from sflam.learn.round import local_steps
from sflam.learn.server import Trunk
from sflam.learn.settings import LearnSettings
from sflam.model.adapters import attach
from sflam.model.settings import ModelSettings
from sflam.model.split import split

TOKENS, WIDTH = 50, 768
SHAPE = Shape(lambda: ViTForImageClassification(ViTConfig(patch_size=32, num_labels=CLASSES)), TOKENS, WIDTH)
RATE = 1e-5  # low, so that no loss reaches zero while it is timed
CPU = torch.device("cpu")


def full(args: Namespace) -> Callable[[], Any]:
    """Return a step of plain training of every weight."""
    backbone = SHAPE.backbone(seed=args.seed)
    model = backbone.model.train().requires_grad_()
    batches = [minibatch(backbone, args.images, TOKENS, seed) for seed in range(args.devices)]
    adam = torch.optim.AdamW(model.parameters(), lr=RATE)

    def run() -> None:
        for batch in batches:
            adam.zero_grad()
            model(**batch.inputs, labels=batch.labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adam.step()

    return run


def frozen(args: Namespace) -> Callable[[], Any]:
    """Return forward and backward by input of the frozen blocks, in the chunks of ``sflam``."""
    backbone = SHAPE.backbone(seed=args.seed)
    model: Any = backbone.model.train().requires_grad_(False)
    rows = -(-args.images // 2)
    tokens = torch.randn(rows, TOKENS, WIDTH, requires_grad=True)

    def run() -> None:
        for _ in range(args.devices * args.images // rows):
            hidden = tokens
            for block in model.vit.layers:
                hidden = block(hidden)
            torch.autograd.grad(hidden.sum(), [tokens])

    return run


def sflam(args: Namespace, **learn: Any) -> Callable[[], Any]:
    """Return a local step of devices and server, with what crosses the cut as bytes."""
    backbone = SHAPE.backbone(seed=args.seed)
    settings = LearnSettings(lr=RATE, batch=args.images, **learn)
    model = attach(backbone, ModelSettings(), seed=args.seed)
    cuts = [0] * args.devices
    batches = {k: minibatch(backbone, args.images, TOKENS, k) for k in range(args.devices)}
    device, server = split(backbone, model, cuts)
    devices, trunk = Devices(device, cuts, settings), Trunk(server, backbone.task, settings)
    trunk.budget = PassBudget(built_step(backbone, TOKENS, settings))
    exchange = Exchange("uniform", seed=0, bits=dict.fromkeys(range(args.devices), (args.bits, args.bits)))
    steps = {k: [partial(lambda batch: batch, batch)] for k, batch in batches.items()}
    return lambda: local_steps(0, steps, devices, trunk, exchange)


RUNS: dict[str, Callable[[Namespace], Callable[[], Any]]] = {
    "full": full,
    "frozen": frozen,
    "sflam": sflam,
    "canonical": partial(sflam, canonical=True),
    "one pass": partial(sflam, memory_gb=1e3),
}


def peak_gb(name: str, args: Namespace) -> float:
    """Return VmHWM of a process that takes two steps of one run."""
    command = [sys.executable, __file__, "--json", "--peak-of", name]
    for key in ("devices", "images", "bits", "threads", "seed"):
        command += [f"--{key}", str(getattr(args, key))]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return float(json.loads(lines[-1])["peak_gb"])


def main() -> None:
    options = parser(__doc__, repeats=3, seconds=0)
    options.add_argument("--devices", type=int, default=3)
    options.add_argument("--images", type=int, default=32, help="of a device's mini-batch")
    options.add_argument("--bits", type=int, default=8)
    options.add_argument("--whole", action="store_true", help="also all rows in one pass")
    options.add_argument("--runs", nargs="+", choices=RUNS, help="these alone")
    options.add_argument("--peak-of", choices=RUNS, help="take two steps of this run and print its peak")
    args = options.parse_args()
    set_up(args)
    if args.peak_of:
        run = RUNS[args.peak_of](args)
        run(), run()
        found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
        assert found
        return print(json.dumps({"peak_gb": int(found[1]) * 1024 / 1e9}))
    names = args.runs or [name for name in RUNS if args.whole or name != "one pass"]
    times = in_turns(
        {name: RUNS[name](args) for name in names}, repeats=args.repeats, seconds=args.seconds, device=CPU
    )
    images, found = args.devices * args.images, []
    for name, timing in times.items():
        line = {"run": name, **timing.record(CPU, images)}
        for key, other in (("ratio", "full"), ("over frozen", "frozen")):
            if other in times:
                line[key] = ratio(timing, times[other], CPU)
        found.append(line | {"peak_gb": round(peak_gb(name, args), 3)})
    if not args.json:
        kept = ("run", "turns", "cpu_ms", "cpu_ms_least", "cpu_ms_most", "ratio", "over frozen", "peak_gb")
        found = [{key: one[key] for key in kept if key in one} for one in found]
    show(found, as_json=args.json, title=f"{args.devices} devices x {args.images} images, ms per image")


if __name__ == "__main__":
    main()
