"""Canonical runs as digests: what a change that keeps behaviour must leave as it is, bit for bit.

    python -m tests.canonical        # rewrite tests/canonical.json, when numbers are meant to change

A digest covers every adapter tensor, and every number of the history but the host's own seconds. Floating-point sums
depend on the processor and on the libraries' versions, so the digests are kept beside the machine they hold for; on
another one the test falls back to what the history says, to a tolerance.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from sklearn.datasets import load_digits

import sflam
from sflam.model.backbone import quiet
from tests.reviews import write_reviews
from tests.simulate.builders import SQUARE
from tests.tiny import tiny

STORED = Path(__file__).with_suffix(".json")
HOST = ("kind", "seconds", "planning_s", "measuring_s", "evaluating_s")
LATER = ("device_samples", "device_loss", "device_class_accuracy")
"""What histories hold since the digests were stored: a digest covers the numbers there were then."""

FLOATS = "quant.bits_adapters=32"  # as adapters went up when the digests were stored
COMMON = ("learn.canonical=true", "learn.device=cpu", FLOATS)
TINY = (*COMMON, "learn.rounds=2", "learn.local_steps=2", "learn.batch=4", "fleet.devices=3", "model.rank=2")
WHOLE = ("network.simulate=true", "learn.local_steps=0", "learn.rounds=3")
SERVERS = (*WHOLE, *SQUARE, 'plan.counts="activations"')
NETWORK = (*WHOLE, "plan.counts=activations")  # the only books there were when their digests were stored
VIT: dict[str, tuple[str, ...]] = {
    "four bits": ("quant.bits_up=4", "quant.bits_down=4"),
    "served": ("quant.bits_up=4", "quant.bits_down=4", "data.name=digits", "data.partition=iid"),
    "rotated": ("quant.scheme=rotated", "quant.bits_up=3"),
    "labels on the device": ("model.labels=device", "learn.state=keep"),
    "cuts mixed": ("fleet.cuts=[0,1,3]",),
    "selected": ("fleet.selected=2", "fleet.devices=4"),
    "cached": ("model.cut=0", "learn.cache=device"),
    "freeze-a": ("learn.aggregation=freeze-a",),
    "residual": ("learn.aggregation=residual",),
    "dropout": ("model.dropout=0.1",),
    "full": ("model.trainable=full",),
    **{
        method: (f"learn.method={method}",)
        for method in ("sfl-v1", "sfl-v2", "sl", "fedlora", "local", "central")
    },
    "fedavg": ("learn.method=fedavg", "model.trainable=full"),
    "simulated": NETWORK,
    "simulated with bits": (
        *NETWORK,
        'plan.optimize=["clock","bits"]',
        "plan.measure_every=2",
        "plan.bias_share=0",
    ),
    "simulated, batteries": (*NETWORK, "network.battery_j=2", "fleet.policy=energy", "fleet.selected=2"),
    "simulated, relay": (*NETWORK, "learn.method=sl"),
    "simulated, one trunk": (*WHOLE, "learn.method=sfl-v2", "network.downlink_mbps=5"),
    "simulated, mixed": (*WHOLE, "learn.method=sflam-mixed", "network.static_power_w=0.3"),
    "several servers": SERVERS,
    "several servers, placed": (*SERVERS, "fleet.cuts=[1,1,2,1,1]", "fleet.servers=[0,1,-1,1,0]"),
    "whole rounds": (*WHOLE, "network.downlink_mbps=5"),
    "whole rounds, batteries": (*WHOLE, "network.battery_j=2", "fleet.policy=energy", "fleet.selected=2"),
    "whole rounds, relay": (*WHOLE, "learn.method=sl"),
}


def jobs(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the settings of every canonical run; models and data they need are written into ``folder``."""
    with quiet():
        tiny("vit", dtype=torch.float32).model.save_pretrained(folder / "vit")
    whole = load_digits()
    images = (whole.images * (255 / 16)).round().astype(np.uint8)[..., np.newaxis]
    np.savez(folder / "digits.npz", image=images[:60], label=whole.target[:60])
    write_reviews(folder)
    vit = (*TINY, f"model.name={folder / 'vit'}", f"data.name={folder / 'digits.npz'}")
    text = (
        *TINY,
        f"model.name={folder / 'bert'}",
        f"data.name={folder / 'reviews.csv'}",
        "data.buckets=true",
    )
    return {
        "default": (*COMMON, "learn.rounds=2"),
        "texts": (*text, "data.partition=dirichlet", "quant.bits_up=4", "quant.scheme=rotated"),
        **{name: (*vit, *settings) for name, settings in VIT.items()},
    }


def digest(run: Path) -> dict[str, Any]:
    """Return the digest of a finished run's folder: two digests, and numbers to compare on other machines."""
    trained = hashlib.sha256()
    paths = [path for folder in ("adapter", "model") for path in sorted((run / folder).glob("*.safetensors"))]
    assert paths, f"{run} holds no trained weights"
    for path in paths:
        for name, tensor in sorted(load_file(path).items()):
            trained.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            trained.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    lines = (run / "history.jsonl").read_text().splitlines()[1:]
    rounds = [
        {key: value for key, value in json.loads(line).items() if key not in HOST + LATER} for line in lines
    ]
    return {
        "adapters": trained.hexdigest()[:16],
        "history": hashlib.sha256(json.dumps(rounds, sort_keys=True).encode()).hexdigest()[:16],
        "loss": [one["loss"] for one in rounds],
        "bytes": [one["bytes_up"] + one["bytes_down"] for one in rounds],
        "clock": [one["charge"]["clock"] for one in rounds if "charge" in one],
    }


def trained(settings: tuple[str, ...], run: Path) -> dict[str, Any]:
    """Train a job; return its digest."""
    sflam.train(sflam.load(None, settings), run)
    return digest(run)


def machine() -> str:
    """Return what floating-point sums depend on."""
    parts = [torch.__version__, transformers.__version__, np.__version__, platform.machine()]
    parts += [torch.backends.cpu.get_cpu_capability(), processor()]
    chosen = os.environ.get("OPENBLAS_CORETYPE", "")  # NumPy's kernels, where the user chooses them
    return " ".join([*parts, chosen] if chosen else parts)


def processor() -> str:
    """Return the vendor and family of the processor, by which libraries choose their kernels; "" where unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    pairs = [line.partition(":")[::2] for line in lines if ":" in line]
    known = {key.strip(): value.strip() for key, value in reversed(pairs)}
    return " ".join(known.get(key, "?") for key in ("vendor_id", "cpu family"))


def main() -> None:
    """Write the digests of this machine beside those of others."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = {}
        for number, (job, settings) in enumerate(jobs(folder).items()):
            found[job] = trained(settings, folder / f"run-{number}")
            print(job, found[job], flush=True)
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    STORED.write_text(json.dumps(stored | {machine(): found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
