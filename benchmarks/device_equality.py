"""Whether a device without torch learns what a torch device does: ``python benchmarks/device_equality.py [--json]``.

Two questions about the default job, quantized. Codes: every device takes all its samples through both kinds of half,
from the same adapters, and what they would send up is compared code by code (16 bits beside the others). Accuracy: the
job is served over TLS to ``sflam device`` processes, and trained by ``sflam train``, which ends as served torch devices
do, bit for bit (tests/serve/test_served_is_simulated.py); the difference is paired by seed. A run that a stop has left
goes on from its table: seeds that are in ``--out`` are not run again.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from common import introduce, machine, show, trained

import sflam
from sflam import config
from sflam.codec.legs import UP, noise_seed
from sflam.codec.packing import unpack
from sflam.codec.quantizers import quantizer
from sflam.data.batches import round_batches
from sflam.device.engines import Engines
from sflam.device.half import Grouping, LeanHalf
from sflam.device.samples import OwnSamples
from sflam.device.weights import Weights
from sflam.learn.adapter_exchange import flatten
from sflam.link.half import LocalStep
from sflam.model.adapters import state_of
from sflam.model.export import device_tensors
from sflam.model.split import DeviceSegment
from sflam.records import history
from sflam.run.assemble import assemble, examples_of
from sflam.serve.graph_offer import HalfKind, compared
from sflam.serve.torch_half import TorchHalf


class Sent:
    """Collects the activations of a step."""

    def __init__(self) -> None:
        self.pieces: list[Any] = []

    def write(self, tokens: Any) -> None:
        """Take the next tokens, [n, d]."""
        self.pieces.append(np.array(tokens.detach().numpy() if hasattr(tokens, "detach") else tokens))

    def codes(self, bits: int, seed: int, scheme: str) -> Any:
        """Return what would be sent, code by code."""
        x = np.concatenate(self.pieces).astype(np.float32)
        packed = quantizer(scheme).encode(x, bits, seed)
        return unpack(packed.codes, bits, packed.tokens * packed.dim)


def flipped(job: sflam.Job, folder: Path, all_bits: list[int]) -> list[dict[str, Any]]:
    """Return, for each width, in how many codes of a pass over all samples the kinds of device differ."""
    assembly = assemble(job)
    cut, train = job.model.cut, assembly.splits.train
    bundle, _, _ = compared(assembly, HalfKind(cut=cut), tokens_of(assembly))
    file = folder / "half.safetensors"
    safetensors.torch.save_file(
        device_tensors(assembly.backbone, assembly.model, cut, job.model.labels), str(file)
    )
    examples = examples_of(train, assembly.backbone)
    different, count = dict.fromkeys(all_bits, 0), 0
    engines, weights = Engines(bundle), Weights(file, keep=True)
    segment = DeviceSegment(assembly.backbone, cut, 1, labels=job.model.labels)
    segment.stack.write(0, state_of(assembly.model))
    start = flatten(segment.stack.read(0), segment.names(cut)).numpy()
    for device, part in enumerate(assembly.parts):
        torch_half = TorchHalf(segment, cut, job.learn, examples, part)
        lean = LeanHalf(
            engines, weights, OwnSamples(train, part, examples.spec, False), job.learn, Grouping(4)
        )
        lean.write(start)
        batches = round_batches(
            part, job.learn.batch, seed=job.seed, round=0, device=device, steps=0, epochs=1
        )
        for number, rows in enumerate(batches):
            step, halves = LocalStep(0, number, 1, 2, job.learn.lr), (Sent(), Sent())
            for half, sent in zip((torch_half, lean), halves, strict=True):
                half.take(rows)
                half.forward(step, sent)  # type: ignore[attr-defined]
            seed = noise_seed(job.seed, 0, number, device, UP)
            for bits in all_bits:
                ours, theirs = (sent.codes(bits, seed, job.quant.scheme) for sent in halves)
                different[bits] += int((ours != theirs).sum())
            count += len(ours)
    weights.close()
    return [
        {"bits": bits, "codes": count, "that differ": found, "share": found / count}
        for bits, found in different.items()
    ]


def tokens_of(assembly: Any) -> int:
    """Return the tokens of an image, class token included."""
    shape = assembly.backbone.model.config
    return int((shape.image_size // shape.patch_size) ** 2 + 1)


def served(settings: list[str], devices: int, folder: Path) -> float:
    """Serve a job to devices without torch; return the accuracy at its end."""
    folder.mkdir(parents=True)
    sflam_ = [sys.executable, "-m", "sflam"]
    subprocess.run(
        [*sflam_, "certs", "--out", folder / "certs", "--host", "127.0.0.1"], check=True, capture_output=True
    )
    for device in range(devices):
        named = [*sflam_, "enrol", f"device-{device}", "--roster", folder / "devices.json"]
        done = subprocess.run(named, check=True, capture_output=True, text=True)
        (folder / f"token-{device}").write_text(done.stdout)
    sets = [word for setting in settings for word in ("--set", setting)]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [*sflam_, "serve", *sets, "--out", folder / "run", "--port", "0", "--roster", folder / "devices.json",
             "--cert", folder / "certs/server.pem", "--key", folder / "certs/server.key"], stdout=log, stderr=log,
        )  # fmt: skip
    started = [server]
    try:
        while not (
            found := re.search(r"listening on https://\S+:(\d+)", (folder / "server.log").read_text())
        ):
            if server.poll() is not None:
                raise SystemExit((folder / "server.log").read_text())
            time.sleep(0.5)
        for device in range(devices):
            with (folder / f"device-{device}.log").open("w") as log:
                started.append(subprocess.Popen(
                    [sys.executable, "-m", "sflam.device.cli", f"127.0.0.1:{found[1]}", "--token-file",
                     folder / f"token-{device}", "--ca", folder / "certs/ca.pem", "--folder",
                     folder / f"device-{device}", "--state-every", "0"], stdout=log, stderr=log,
                ))  # fmt: skip
        if server.wait():
            raise SystemExit((folder / "server.log").read_text())
    finally:
        for process in started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait()
    return float(history.read(folder / "run" / "history.jsonl")[1][-1].accuracy)  # type: ignore[arg-type]


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--bits", type=int, nargs="+", default=[8, 4])
    options.add_argument("--rounds", type=int, default=0, help="of the default job; 0 for its own number")
    options.add_argument(
        "--out", type=Path, help="folder of the runs and their table; a temporary one by default"
    )
    options.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
    args = options.parse_args()
    introduce(machine(), as_json=args.json)
    with tempfile.TemporaryDirectory() as temporary:
        out = args.out or Path(temporary)
        out.mkdir(parents=True, exist_ok=True)
        show(flipped(config.load(None, ["learn.device=cpu"]), out, [*args.bits, 16]), as_json=args.json)
        table = out / "accuracy.jsonl"
        rows = [json.loads(line) for line in table.read_text().splitlines()] if table.exists() else []
        done = {(row["bits"], row["seed"]) for row in rows}
        for seed in range(args.seeds):
            for bits in args.bits:
                if (bits, seed) in done:
                    continue
                settings = [
                    f"seed={seed}",
                    f"quant.bits_up={bits}",
                    f"quant.bits_down={bits}",
                    "learn.device=cpu",
                ]
                settings += [f"learn.rounds={args.rounds}"] if args.rounds else []
                job = config.load(None, settings)
                theirs = float(trained(job, out / f"torch-{bits}-{seed}").accuracy)
                ours = served(settings, job.fleet.devices, out / f"lean-{bits}-{seed}-{time.time_ns()}")
                rows.append({"bits": bits, "seed": seed, "lean": ours, "torch": theirs})
                with table.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
        found = []
        for bits in args.bits:
            pairs = [row for row in rows if row["bits"] == bits]
            apart = [row["lean"] - row["torch"] for row in pairs]
            error = statistics.stdev(apart) / len(apart) ** 0.5 if len(apart) > 1 else float("nan")
            found.append({
                "bits": bits, "seeds": len(pairs), "lean": statistics.fmean(row["lean"] for row in pairs),
                "torch": statistics.fmean(row["torch"] for row in pairs), "difference": statistics.fmean(apart),
                "standard error": error,
            })  # fmt: skip
        show(found, as_json=args.json)


if __name__ == "__main__":
    main()
