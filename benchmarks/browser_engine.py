"""The page's engine in node beside the NumPy device: ``python benchmarks/browser_engine.py [--json]``.

One thread each, CPU milliseconds of a whole local step (forward, backward, AdamW) of the same half, LoRA r = 8 on every
linear layer; runs take turns, and the fastest of each counts. ``difference`` is the largest of the trained values after
the steps of a turn, relative to the largest.

    numpy   the device without torch, pages kept
    simd    the page's engine with its product in WebAssembly
    plain   the same without WebAssembly
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import safetensors.torch
import torch
import transformers
from tests.device.test_half import In, Out
from tests.web.engine_process import NodeEngine, text_of

from sflam.data.dataset import Dataset
from sflam.data.images import ImageSpec
from sflam.device.engines import Engines
from sflam.device.half import Grouping, LeanHalf
from sflam.device.samples import OwnSamples
from sflam.device.weights import Weights
from sflam.graph.writing import write_bundle
from sflam.learn.settings import LearnSettings
from sflam.link.half import LocalStep
from sflam.model.adapters import attach
from sflam.model.backbone import wrap
from sflam.model.device_graphs import bundle_of, device_half
from sflam.model.graph_check import frozen_tensors
from sflam.model.settings import ModelSettings

NANO = {
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_attention_heads": 3,
    "image_size": 16,
    "patch_size": 4,
}
SHAPES: dict[str, tuple[dict[str, Any], int, int]] = {
    "nano ViT, cut 1": (NANO | {"num_channels": 1}, 16, 5),
    "ViT-B/16, cut 1": ({}, 1, 2),
}
"""Name -> configuration, images of a step, steps of a turn."""
STEP = LocalStep(0, 0, 7, 8, 1e-3)


def main() -> None:
    """Measure every shape, and show it."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--turns", type=int, default=5)
    options.add_argument("--json", action="store_true", help="print the records")
    args = options.parse_args()
    torch.set_num_threads(1)
    records = [measured(name, args.turns) for name in SHAPES]
    if args.json:
        print(json.dumps(records, indent=1))
        return
    print(
        f"{'half':18}{'images':>8}{'numpy ms':>10}{'simd ms':>9}{'x numpy':>9}{'plain ms':>10}{'difference':>12}"
    )
    for each in records:
        print(
            f"{each['half']:18}{each['images']:8}{each['numpy']:10.1f}{each['simd']:9.1f}"
            f"{each['simd'] / each['numpy']:9.2f}{each['plain']:10.1f}{each['difference']:12.1e}"
        )


def measured(name: str, turns: int) -> dict[str, Any]:
    """Return the record of a shape."""
    shape, images, steps = SHAPES[name]
    config = transformers.ViTConfig(**shape, num_hidden_layers=2, num_labels=10)
    backbone = wrap(transformers.ViTForImageClassification(config).eval())
    model = attach(backbone, ModelSettings(rank=8))
    tokens = (config.image_size // config.patch_size) ** 2 + 1
    learn = LearnSettings(lr=1e-3)
    half = device_half(backbone, model, 1, labels="server", tokens=tokens, learn=learn)
    bundle = bundle_of(half)
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (images, config.image_size, config.image_size, config.num_channels))
    spec = ImageSpec(
        size=config.image_size,
        channels=config.num_channels,
        mean=(0.5,) * config.num_channels,
        std=(0.5,) * config.num_channels,
    )
    labels, own = np.zeros(images, np.int64), np.arange(images)
    samples = OwnSamples(
        Dataset("x", "image", pixels.astype(np.uint8), None, labels, ("a",)), own, spec, False
    )
    gradient = draw.normal(size=(images * tokens, config.hidden_size)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder, NodeEngine() as page:
        file = Path(folder) / "segment.safetensors"
        safetensors.torch.save_file(frozen_tensors(half, model), file)
        weights = Weights(file, keep=True)
        grouping = Grouping(images, keep_inputs=True)
        lean = LeanHalf(Engines(bundle), weights, samples, learn, grouping)
        values = draw.normal(size=lean.trained).astype(np.float32) / 50
        for run in ("simd", "plain"):
            given = {"graphs": text_of(write_bundle(bundle)), "segment": text_of(file.read_bytes())}
            page.ask("open", name=run, **given, rows=images, plain=run == "plain")
        rows = {"pixels": samples.pixels(own).reshape(-1), "labels": labels.astype(np.int32)}
        at = {"seed": "7", "headSeed": "8", "rate": STEP.rate}
        found: dict[str, list[float]] = {"numpy": [], "simd": [], "plain": []}
        for turn in range(turns + 1):
            lean.write(values)
            lean.put_optimizer({})
            started = time.process_time()
            for _ in range(steps):
                lean.take(own)
                lean.forward(STEP, Out())
                lean.backward(STEP, In(gradient))
            found["numpy"].append((time.process_time() - started) * 1e3 / steps)
            for run in ("simd", "plain"):
                page.ask("call", name=run, method="write", given=[values])
                page.ask("call", name=run, method="putOptimizer", given=[None])
                if run == "plain" and turn > 1:
                    continue
                asked = {
                    "name": run,
                    "rows": rows,
                    "at": at,
                    "gradient": gradient.reshape(-1),
                    "steps": steps,
                }
                found[run].append(page.ask("time", **asked)["cpu"])
        there = page.ask("call", name="simd", method="read", given=[])["found"]
        weights.close()
    difference = float(np.abs(there - lean.read()).max() / np.abs(there).max())
    fastest = {run: min(each[1:]) for run, each in found.items()}
    return {"half": name, "images": images, **fastest, "difference": difference}


if __name__ == "__main__":
    main()
