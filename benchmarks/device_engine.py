"""One block of a device half in NumPy beside torch: ``python benchmarks/device_engine.py [--json]``.

A block of ViT-B/16 with LoRA (r = 8) on every linear layer and random weights. A step is what a device does at one
block: torch forward and backward; the engine the forward graph, then the joint graph, which runs forward again. Each
runs in a process of its own, one thread:

    torch   the product's DeviceSegment
    kept    the engine, frozen matrices from a map whose pages stay
    read    the engine, frozen matrices read a slice at a time

``peak`` is the growth of the resident memory from just before the first step (torch: with its weights loaded; the
engine: with the file opened) to the peak; ``process`` is the peak of the whole process. ``error`` is the largest
relative difference of the gradients to torch's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

RUNS = ("torch", "kept", "read")
BLOCK = 1  # the second: its gradient goes on to a block before


def main() -> None:
    """Measure every kind of run in its own process, and show them."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rows", type=int, default=1, help="images at a time")
    options.add_argument("--repeat", type=int, default=8, help="steps; the fastest counts")
    options.add_argument("--json", action="store_true", help="print the records")
    options.add_argument("--run", choices=("prepare", *RUNS), help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.run:
        print(json.dumps(CHILDREN[args.run](args)))
        return
    with tempfile.TemporaryDirectory() as folder:
        records = [child(args, run, Path(folder)) for run in ("prepare", *RUNS)][1:]
    if args.json:
        print(json.dumps(records, indent=1))
        return
    fastest = records[0]["seconds"]
    print(f"{'run':8}{'CPU ms a step':>15}{'x torch':>9}{'peak MB':>9}{'process MB':>12}{'error':>10}")
    for each in records:
        print(
            f"{each['run']:8}{each['seconds'] * 1e3:15.1f}{each['seconds'] / fastest:9.2f}{each['peak'] / 1e6:9.1f}"
            f"{each['process'] / 1e6:12.1f}{each['error']:10.1e}"
        )


def child(args: Namespace, run: str, folder: Path) -> Any:
    """Return the record of one run in a process of its own."""
    command = [sys.executable, __file__, "--run", run, "--folder", str(folder)]
    command += ["--rows", str(args.rows), "--repeat", str(args.repeat)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    for name in (
        "OPENBLAS_CORETYPE",
        "OPENBLAS_L2_SIZE",
    ):  # as on a machine that leaves the choice to OpenBLAS
        environment.pop(name, None)
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout)


def prepare(args: Namespace) -> dict[str, Any]:
    """Write the bundle, the frozen tensors, and inputs with torch's gradients of them."""
    import numpy as np
    import torch
    from safetensors.torch import save_file

    from sflam.graph.writing import write_bundle
    from sflam.model.device_graphs import bundle_of
    from sflam.model.graph_check import frozen_tensors

    half, model = built()
    bundle = bundle_of(half)
    (args.folder / "bundle.json").write_bytes(write_bundle(bundle))
    frozen = {name: each.detach().clone().contiguous() for name, each in frozen_tensors(half, model).items()}
    save_file(frozen, args.folder / "frozen.safetensors")
    trained = {name: tensor[0].detach().numpy() for name, tensor in half.segment.stack.tensors.items()}
    torch.manual_seed(1)
    sides = {side: torch.randn(args.rows, 197, 768).numpy() for side in ("hidden", "gradient")}
    np.savez(args.folder / "inputs.npz", **trained, **sides)
    names = [name for name in trained if half.segment.block_of(name) == BLOCK]
    np.savez(args.folder / "expected.npz", **torch_step(half, names, sides)())
    return {}


def built() -> Any:
    """Return a device half of two blocks of ViT-B/16, and its model."""
    import torch
    import transformers

    from sflam.learn.settings import LearnSettings
    from sflam.model.adapters import attach
    from sflam.model.backbone import wrap
    from sflam.model.device_graphs import device_half
    from sflam.model.settings import ModelSettings

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = transformers.ViTConfig(num_hidden_layers=BLOCK + 2, num_labels=10)
    backbone = wrap(transformers.ViTForImageClassification(config), fresh=("classifier",))
    model = attach(backbone, ModelSettings(rank=8))
    learn = LearnSettings()
    return device_half(backbone, model, BLOCK + 1, labels="server", tokens=197, learn=learn), model


def torch_step(half: Any, names: list[str], sides: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """Return forward and backward of the block as the product's segment runs it."""
    import torch

    block = half.segment.blocks[str(BLOCK)]
    tensors = [half.segment.stack.tensors[name] for name in names]
    gradient = torch.from_numpy(sides["gradient"])

    def run() -> dict[str, Any]:
        hidden = torch.from_numpy(sides["hidden"]).requires_grad_()
        out = block(hidden)
        out = out[0] if isinstance(out, tuple) else out
        found = torch.autograd.grad(out, [hidden, *tensors], gradient)
        made = {name: each[0].numpy() for name, each in zip(names, found[1:], strict=True)}
        return {"gradient_in": found[0].numpy(), **made}

    return run


def run_torch(args: Namespace) -> dict[str, Any]:
    """Time the product's segment."""
    import numpy as np

    half, _ = built()
    inputs = dict(np.load(args.folder / "inputs.npz"))
    names = [name for name in half.segment.stack.tensors if half.segment.block_of(name) == BLOCK]
    return measured(args, torch_step(half, names, inputs))


def run_engine(args: Namespace) -> dict[str, Any]:
    """Time the engine."""
    import numpy as np

    from sflam.device.engine import Arena, Engine
    from sflam.device.weights import Weights
    from sflam.graph.reading import read_bundle

    bundle = read_bundle((args.folder / "bundle.json").read_bytes())
    weights = Weights(args.folder / "frozen.safetensors", keep=args.run == "kept")
    given, block = np.load(args.folder / "inputs.npz"), bundle.blocks[BLOCK]
    arena, kind = Arena(), bundle.kinds[block.kind]
    assert kind.joint is not None
    engines = [Engine(graph, np.float32, arena) for graph in (kind.forward, kind.joint)]
    inputs: dict[str, Any] = {}
    for name in {*kind.forward.inputs, *kind.joint.inputs}:
        source, value = block.binding.inputs[name], engines[1].graph.values.get(name)
        shape = tuple(size.at(args.rows) for size in (value or engines[0].graph.values[name]).shape)
        frozen = source.role == "frozen"
        inputs[name] = weights.frozen(source.name, shape) if frozen else given[source.name or source.role]

    def run() -> dict[str, Any]:
        engines[0].run(inputs, args.rows)
        found = engines[1].run(inputs, args.rows)
        outputs = block.binding.outputs
        return {outputs[name].name or "gradient_in": array for name, array in found.items()}

    return measured(args, run)


def measured(args: Namespace, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the record of a step."""
    import numpy as np

    before, seconds, found = status("VmRSS"), float("inf"), {}
    for _ in range(args.repeat):
        start = time.process_time()
        found = run()
        seconds = min(seconds, time.process_time() - start)
    peak = status("VmHWM")
    expected = np.load(args.folder / "expected.npz")
    errors = [
        np.abs(found[name] - expected[name]).max() / np.abs(expected[name]).max() for name in expected.files
    ]
    return {
        "run": args.run,
        "seconds": seconds,
        "peak": peak - before,
        "process": peak,
        "error": float(max(errors)),
    }


def status(field: str) -> int:
    """Return a number of bytes that the system keeps about this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


CHILDREN = {"prepare": prepare, "torch": run_torch, "kept": run_engine, "read": run_engine}

if __name__ == "__main__":
    main()
