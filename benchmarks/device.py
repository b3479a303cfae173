"""What a device takes, as the system counts its whole process: ``python benchmarks/device.py [--rows nano vit ...]``.

Every row serves a job of one device over TLS on this machine and lets a device of each kind do it, from the start of
its process to its end: download, samples, state after every step and all. Peak RSS is the child's ``ru_maxrss``, in MB
of 2^20 bytes; CPU seconds of a step are the difference between runs of few and of more steps, so start-up and download
cancel out. Models other than nano-vit and ``--minilm FOLDER`` have random weights; the server holds one block more than
the device does, which is nothing to the device. This program imports the standard library alone: a child's
``ru_maxrss`` begins with its parent's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

LEAN, TORCH = "sflam device", "sflam join"
COMMANDS = {LEAN: ("-m", "sflam.device.cli"), TORCH: ("-m", "sflam", "join")}


@dataclass(frozen=True)
class Row:
    """A job.

    Attributes:
        title: what to call it.
        cut: blocks on the device.
        batch: rows of a step.
        steps: of the short and of the long run.
        model: transformers class, configuration; None for a folder or a bundled model.
        settings: further ones of the job.
        tokens: of a text, at most; 0 for images.
        limit: megabytes given with --memory; 0 gives none.
    """

    title: str
    cut: int
    batch: int
    steps: tuple[int, int]
    model: tuple[str, str, dict[str, object]] | None = None
    settings: tuple[str, ...] = ()
    tokens: int = 0
    limit: int = 0


VIT_B = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
VIT_L = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
LLAMA = {
    "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": True, "max_position_embeddings": 2048,
}  # fmt: skip


def vit(
    title: str, shape: dict[str, object], cut: int, steps: tuple[int, int], limit: int, batch: int = 32
) -> Row:
    """Return the row of a ViT with random weights."""
    config = {**shape, "num_hidden_layers": cut + 1, "image_size": 224, "patch_size": 16}
    return Row(title, cut, batch, steps, ("ViTForImageClassification", "ViTConfig", config), limit=limit)


ROWS = {
    "nano": Row("nano ViT, cut 1, batch 16", 1, 16, (5, 105), limit=50),
    "minilm": Row("MiniLM, cut 2, batch 8, ragged", 2, 8, (2, 12), tokens=128, limit=62),
    "vit": vit("ViT-B/16, cut 1, batch 32", VIT_B, 1, (1, 3), 64),
    "vit12": vit("ViT-B/16, cut 12, batch 32", VIT_B, 12, (1, 2), 88),
    "vitl": vit("ViT-L/16, cut 1, batch 32", VIT_L, 1, (1, 2), 100),
    "llama": Row(
        "Llama-3.2-1B shapes, cut 1, batch 4, 128 tokens",
        1,
        4,
        (1, 3),
        ("LlamaForSequenceClassification", "LlamaConfig", {**LLAMA, "num_hidden_layers": 2}),
        tokens=128,
        limit=100,
    ),
    "gpt2": Row(
        "GPT-2, cut 1, labels at home, batch 4, 128 tokens",
        1,
        4,
        (1, 3),
        ("GPT2LMHeadModel", "GPT2Config", {"n_layer": 2}),
        ("model.labels=device", "data.label="),
        tokens=128,
        limit=100,
    ),
}

MAKE = """
import json, sys
import numpy as np, torch, transformers
name, kind, config, folder = json.loads(sys.argv[1])
torch.manual_seed(0)
transformers.logging.set_verbosity_error()
getattr(transformers, name)(getattr(transformers, kind)(pad_token_id=0, num_labels=10, **config) if "ViT" not in kind
    else getattr(transformers, kind)(num_labels=10, **config)).save_pretrained(folder)
"""
DATA = """
import json, sys
import numpy as np
path, rows, tokens, words = json.loads(sys.argv[1])
rng = np.random.default_rng(0)
label = np.arange(rows) % 10
if tokens:
    lengths = np.clip(np.rint(rng.lognormal(np.log(tokens / 4), 0.6, rows)), 4, tokens).astype(np.int64)
    lengths[:: max(1, rows // 8)] = tokens
    np.savez(path, input_ids=rng.integers(5, words, (rows, tokens)), lengths=lengths, label=label)
else:
    np.savez(path, image=rng.integers(0, 256, (rows, 224, 224, 3)).astype(np.uint8), label=label)
"""


def python(*arguments: object) -> str:
    """Run Python in a process of its own; return what it prints."""
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def measured(arguments: list[str], log: Path) -> tuple[float, float, float]:
    """Run a process; return its peak RSS in MB, CPU seconds and wall seconds."""
    began = time.monotonic()
    with log.open("w") as file:
        child = subprocess.Popen([sys.executable, *arguments], stdout=file, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(arguments)} left with {child.returncode}:\n{log.read_text()}")
    return used.ru_maxrss / 1024, used.ru_utime + used.ru_stime, time.monotonic() - began


def run(row: Row, kind: str, steps: int, model: str, data: str, folder: Path) -> dict[str, float | str]:
    """Serve a job to one device; return what the device took."""
    folder.mkdir()
    python("-m", "sflam", "certs", "--out", folder / "certs", "--host", "127.0.0.1")
    token = python("-m", "sflam", "enrol", "device", "--roster", folder / "devices.json")
    (folder / "token").write_text(token)
    settings = [
        f"model.name={model}", f"model.cut={row.cut}", f"data.name={data}", "data.partition=iid", "fleet.devices=1",
        "learn.rounds=1", f"learn.local_steps={steps}", f"learn.batch={row.batch}", "learn.evaluate_every=0",
        "learn.device=cpu", f"data.max_tokens={row.tokens or 128}", *row.settings,
    ]  # fmt: skip
    sets = [word for setting in settings for word in ("--set", setting)]
    log = folder / "server.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "sflam", "serve", *sets, "--out", str(folder / "run"), "--port", "0", "--roster",
             str(folder / "devices.json"), "--cert", str(folder / "certs/server.pem"), "--key",
             str(folder / "certs/server.key")], stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        while not (found := re.search(r"listening on https://127\.0\.0\.1:(\d+)", log.read_text())):
            if server.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.2)
        own = ["--data", data] if data.endswith(".npz") else ["--share"]
        limit = ["--memory", str(row.limit)] if row.limit and kind == LEAN else []
        more = [] if kind == LEAN else ["--device", "cpu"]
        peak, cpu, wall = measured(
            [*COMMANDS[kind], f"127.0.0.1:{found[1]}", "--token-file", str(folder / "token"), "--ca",
             str(folder / "certs/ca.pem"), "--folder", str(folder / "device"), *own, *limit, *more],
            folder / "device.log",
        )  # fmt: skip
        server.wait(600)
    finally:
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)
            server.wait()
    mode = re.search(r"peak about.*", (folder / "device.log").read_text())
    return {"peak": peak, "cpu": cpu, "wall": wall, "mode": mode[0] if mode else ""}


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--rows", nargs="+", choices=[*ROWS], default=["nano", "vit", "vit12"])
    options.add_argument("--kinds", nargs="+", choices=["lean", "torch"], default=["lean", "torch"])
    options.add_argument("--minilm", type=Path, help="folder of all-MiniLM-L6-v2, for the row minilm")
    options.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
    args = options.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    if not args.json:
        print("| job | device | peak MB | CPU s a step | CPU s in all | how |\n|---|---|---|---|---|---|")
    for name in args.rows:
        row = ROWS[name]
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            model, data = "nano-vit", "digits"
            if name == "minilm":
                if args.minilm is None:
                    raise SystemExit("the row minilm needs --minilm FOLDER")
                model = str(args.minilm)
            if row.model:
                model = str(folder / "model")
                python("-c", MAKE, json.dumps([*row.model, model]))
            if name != "nano":
                data = str(folder / "data.npz")
                words = 1000
                python("-c", DATA, json.dumps([data, max(5 * row.batch, 100), row.tokens, words]))
            for kind in (LEAN, TORCH):
                if kind.split()[1].replace("device", "lean").replace("join", "torch") not in args.kinds:
                    continue
                few, more = (
                    run(row, kind, steps, model, data, folder / f"{kind[6:]}-{steps}") for steps in row.steps
                )
                step = (more["cpu"] - few["cpu"]) / (row.steps[1] - row.steps[0])  # type: ignore[operator]
                line = {"job": row.title, "device": kind, "peak": max(few["peak"], more["peak"]), "cpu_step": step,
                        "cpu": more["cpu"], "mode": more["mode"]}  # fmt: skip
                if args.json:
                    print(json.dumps(line), flush=True)
                else:
                    figures = f"{line['peak']:.1f} | {step:.3f} | {more['cpu']:.1f} | {more['mode']}"
                    print(f"| {row.title} | {kind} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
