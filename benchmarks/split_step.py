"""One training step of a cut model against the same step uncut: ``python benchmarks/split_step.py [--json]``.

One mini-batch of one device, forward, backward, clipping and AdamW on LoRA adapters and a new head:

    unsplit    plain peft training: the whole adapted model called with labels
    identity   cut after one block; activations and gradients cross as real bodies of float32
    uniform    the same, quantized to ``--bits`` bits each way

All three start from the same adapters, and their first losses are compared before anything is timed. ``ratio``
is a run's time over that of ``unsplit``.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from common import SHAPES, in_turns, minibatch, parser, ratio, set_up, show
from peft import PeftModel

from sflam.learn.device import Devices
from sflam.learn.examples import Minibatch
from sflam.learn.exchange import Exchange
from sflam.learn.round import local_steps
from sflam.learn.server import Trunk
from sflam.learn.settings import LearnSettings
from sflam.model.adapters import attach
from sflam.model.backbone import Backbone
from sflam.model.settings import ModelSettings
from sflam.model.split import split

CUT = 1
LEARN = LearnSettings(lr=1e-5)  # low, so that no loss reaches zero while it is timed
BATCHES = {"nano-vit": (16, 32), "minilm": (8,), "vit-b16/3": (2,)}


def unsplit(model: PeftModel, batch: Minibatch) -> Callable[[], float]:
    """Return one step of plain training."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adam = torch.optim.AdamW(trained, lr=LEARN.lr, weight_decay=LEARN.weight_decay)
    model.train()

    def run() -> float:
        loss = model(**batch.inputs, labels=batch.labels).loss
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, LEARN.clip)
        adam.step()
        return float(loss.detach())

    return run


def cut(
    backbone: Backbone, model: PeftModel, batch: Minibatch, scheme: str, bits: int
) -> Callable[[], float]:
    """Return one local step of one device and its server, with what crosses the cut as bytes."""
    device, server = split(backbone, model, [CUT])
    devices, trunk = Devices(device, [CUT], LEARN), Trunk(server, backbone.task, LEARN)
    exchange = Exchange(scheme, seed=0, bits={0: (bits, bits)})

    def run() -> float:
        return local_steps(0, {0: [lambda: batch]}, devices, trunk, exchange).loss

    return run


def measure(args: Namespace, name: str, rows: int) -> list[dict[str, Any]]:
    """Return one record per run."""
    shape = SHAPES[name]
    backbone = shape.backbone(seed=args.seed)
    model = attach(backbone, ModelSettings(), seed=args.seed)
    batch = minibatch(backbone, rows, shape.tokens, args.seed)
    runs = {
        "identity": cut(backbone, model, batch, "identity", args.bits),
        "uniform": cut(backbone, model, batch, "uniform", args.bits),
        "unsplit": unsplit(model, batch),
    }
    losses = {run: step() for run, step in runs.items()}
    assert abs(losses["identity"] / losses["unsplit"] - 1) < 1e-5, losses
    cpu = torch.device("cpu")
    times = in_turns(runs, repeats=args.repeats, seconds=args.seconds, device=cpu)
    found = []
    for run, timing in times.items():
        labels = {"model": name, "batch": rows, "run": run, "loss": losses[run]}
        over = ratio(timing, times["unsplit"], cpu)
        found.append(labels | timing.record(cpu) | {"ratio": over})
    return found


def main() -> None:
    options = parser(__doc__, repeats=11, seconds=20)
    options.add_argument("--models", nargs="+", choices=BATCHES, default=list(BATCHES))
    options.add_argument(
        "--batches", type=int, nargs="+", help="rows of the mini-batch; per model by default"
    )
    options.add_argument("--bits", type=int, default=8)
    args = options.parse_args()
    set_up(args)
    settings = [(name, rows) for name in args.models for rows in args.batches or BATCHES[name]]
    records = [one for name, rows in settings for one in measure(args, name, rows)]
    if not args.json:
        kept = ("model", "batch", "run", "cpu_ms", "cpu_ms_least", "cpu_ms_most", "wall_ms", "ratio")
        records = [{key: one[key] for key in kept} for one in records]
    show(records, as_json=args.json)


if __name__ == "__main__":
    main()
