"""What the benchmarks share: the models, runs measured in turns, and tables."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # NumPy's; torch's are set by ``set_up``

import torch
import transformers

import sflam
from sflam.learn.examples import Minibatch
from sflam.model.backbone import TORCH_DTYPES, Backbone, load, wrap
from sflam.model.families import IMAGE

CLASSES = 10


@dataclass(frozen=True)
class Shape:
    """A model by its sizes; weights are random except those of the bundled one."""

    build: Callable[[], Any]
    tokens: int
    width: int

    def backbone(
        self, *, dtype: str = "float32", device: torch.device | str = "cpu", seed: int = 0
    ) -> Backbone:
        """Return the model with a new head of ``CLASSES`` classes."""
        torch.manual_seed(seed)
        built = self.build()
        if isinstance(built, str):
            backbone = load(built, task=IMAGE, classes=CLASSES, dtype=dtype, seed=seed)
        else:
            backbone = wrap(built.to(TORCH_DTYPES[dtype]), fresh=("classifier",))
        backbone.model.to(device)
        return backbone


def bert(blocks: int) -> Any:
    """A BERT with the sizes of MiniLM."""
    config = transformers.BertConfig(
        hidden_size=384,
        num_hidden_layers=blocks,
        num_attention_heads=12,
        intermediate_size=1536,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=CLASSES,
    )
    return transformers.BertForSequenceClassification(config)


def vit(blocks: int) -> Any:
    """A ViT with the sizes of ViT-B/16."""
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(num_hidden_layers=blocks, num_labels=CLASSES)
    )


SHAPES = {
    "nano-vit": Shape(lambda: "nano-vit", 17, 96),
    "minilm": Shape(lambda: bert(6), 64, 384),
    "vit-b16": Shape(lambda: vit(12), 197, 768),
    "vit-b16/3": Shape(lambda: vit(3), 197, 768),
}


def minibatch(backbone: Backbone, rows: int, tokens: int, seed: int = 0) -> Minibatch:
    """Return random inputs and labels for a model; every row is full."""
    draw, config = torch.Generator().manual_seed(seed), backbone.model.config
    labels = torch.randint(0, CLASSES, (rows,), generator=draw)
    if backbone.model.main_input_name == "pixel_values":
        pixels = (rows, config.num_channels, config.image_size, config.image_size)
        inputs = {"pixel_values": torch.randn(pixels, generator=draw)}
    else:
        inputs = {"input_ids": torch.randint(1, config.vocab_size, (rows, tokens), generator=draw)}
    return Minibatch(inputs, None, labels)


@dataclass
class Timing:
    """Seconds of one run, turn by turn: wall clock, and CPU of all threads."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def record(self, device: torch.device, per: int = 1) -> dict[str, Any]:
        """Return medians with least and most, in ms per unit of which a run does ``per``; CPU only without a GPU."""
        kinds = {"wall": self.wall} if device.type == "cuda" else {"cpu": self.cpu, "wall": self.wall}
        found: dict[str, Any] = {"turns": len(self.wall)}
        for kind, values in kinds.items():
            for name, how in (("", statistics.median), ("_least", min), ("_most", max)):
                found[f"{kind}_ms{name}"] = round(1e3 * how(values) / per, 4)
        return found


def in_turns(
    runs: Mapping[str, Callable[[], Any]], *, repeats: int, seconds: float, device: torch.device
) -> dict[str, Timing]:
    """Time every run, A B C A B C ..., so that a busy moment hits all: ``repeats`` turns, more within ``seconds``."""
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    times = {name: Timing() for name in runs}
    for run in runs.values():
        run()
    began = time.perf_counter()
    turn = 0
    while turn < repeats or (turn < 50 * repeats and time.perf_counter() - began < seconds):
        for name, run in runs.items():
            wait()
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            wait()
            times[name].wall.append(time.perf_counter() - wall)
            times[name].cpu.append(time.process_time() - cpu)
        turn += 1
    return times


def ratio(one: Timing, other: Timing, device: torch.device) -> float:
    """Return the median, over turns, of the time of ``one`` over that of ``other`` in the same turn."""
    a, b = (each.wall if device.type == "cuda" else each.cpu for each in (one, other))
    return round(statistics.median(x / y for x, y in zip(a, b, strict=True)), 3)


def key_of(device: torch.device) -> str:
    """Return the clock to compare by: CPU seconds, which neighbours disturb least, or a GPU's wall clock."""
    return "wall_ms" if device.type == "cuda" else "cpu_ms"


def parser(doc: str | None, *, repeats: int = 7, seconds: float = 5.0) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark; ``doc`` is the script's docstring."""
    options = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    options.add_argument("--repeats", type=int, default=repeats, help="least number of turns")
    options.add_argument(
        "--seconds", type=float, default=seconds, help="more turns within this time, per row"
    )
    options.add_argument("--threads", type=int, default=1, help="threads of torch")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
    return options


def set_up(args: argparse.Namespace) -> None:
    """Set threads, and say on what is measured."""
    torch.set_num_threads(args.threads)
    transformers.utils.logging.set_verbosity_error()
    introduce(machine() | {"threads": args.threads}, as_json=args.json)


def introduce(facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Print on what is measured."""
    said = (
        json.dumps(facts) if as_json else ", ".join(f"{key} {value}" for key, value in facts.items()) + "\n"
    )
    print(said, flush=True)


def machine() -> dict[str, Any]:
    """Return what a reader must know of the machine, and how busy it is."""
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), cpu)
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    facts = {"cpu": cpu, "cores": os.cpu_count(), "torch": torch.__version__, "load": load}
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def show(rows: Sequence[Mapping[str, Any]], *, as_json: bool, title: str = "") -> None:
    """Print rows with equal keys as a table, or each as a line of JSON."""
    if as_json:
        for row in rows:
            print(json.dumps(row), flush=True)
        return
    cells = [list(rows[0]), *([_text(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(title)
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print(flush=True)


def trained(job: sflam.Job, folder: Path) -> sflam.Result:
    """Train a job in a folder, or go on there with what a stop has left."""
    if not folder.exists():
        return sflam.train(job, folder)
    run = sflam.resume(folder)
    for _ in run.rounds():
        pass
    return run.finish()


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)
