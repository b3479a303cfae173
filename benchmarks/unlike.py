"""Accuracy on unlike devices: methods at four bits against central training, seed by seed.

    python benchmarks/unlike.py sentences --model FOLDER --data FOLDER --out FOLDER [--minutes M] [--seeds N] [--table]
    python benchmarks/unlike.py causal --data FOLDER --out FOLDER
    python benchmarks/unlike.py digits --out FOLDER

``sentences`` fine-tunes a BERT encoder in Hugging Face format (measured with MiniLM-L6) on the columns ``sentence`` and
``label`` of ``train.parquet``, ``validation.parquet`` and ``test.parquet``; ``causal`` trains a small GPT-2 of random
weights on the same sentences, as texts; ``digits`` is the bundled model and data. Ten devices; every cell sees as many
rows, and central training takes as many optimiser steps as a device has rows in them, or more. Each method has one
learning rate, chosen at seed 0 and Dirichlet 0.5 on the validation part, which is not scored; the test part is.

Every cell is a run folder under ``--out``: started again, finished cells are not repeated and a half-done one resumes.
``--rate`` takes one learning rate for all instead. ``--minutes`` starts no cell that would end later, by the time of
the slowest so far; ``--table`` only prints what is there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from common import introduce, machine, show, trained

import sflam

ALPHAS = (0.1, 0.5, 1.0)
REFERENCE = "central"
GLOBAL = "sflam-mixed-global"
VARIANTS: dict[str, dict[str, Any]] = {
    # Batches by length would decide which rows come together.
    GLOBAL: {"learn.method": "sflam-mixed", "data.sampling": "global", "data.buckets": "false"},
}
"""What is compared under a name of its own: a method with other keys; its mixed groups have ``learn.batch`` rows."""


@dataclasses.dataclass(frozen=True)
class Track:
    """A model, its data, and what is compared on them.

    Attributes:
        settings: of every job.
        methods: compared with central training.
        rates: learning rates that are tried.
        schemes: (codec, bits).
    """

    settings: Mapping[str, Any]
    methods: tuple[str, ...]
    rates: tuple[float, ...]
    schemes: tuple[tuple[str, int], ...] = (("rotated", 4),)


TRACKS = {
    "sentences": Track(
        {
            "model.cut": 1,
            "model.targets": '["query", "value"]',
            "data.minimum": 8,
            "data.buckets": "true",
            "learn.rounds": 96,
            "learn.local_steps": 1,
            "learn.batch": 8,
            "learn.state": "keep",
        },
        (GLOBAL, "sflam-mixed", "sflam"),
        (1e-3, 2e-3),
        (("rotated", 4), ("identity", 16)),
    ),
    "causal": Track(
        {
            "model.cut": 1,
            "model.targets": '["c_attn"]',
            "model.rank": 16,
            "data.label": "",
            "data.max_tokens": 32,
            "data.minimum": 8,
            "learn.rounds": 60,
            "learn.local_steps": 4,
            "learn.batch": 8,
            "learn.state": "keep",
        },
        (GLOBAL, "sflam-mixed", "sflam"),
        (1e-3, 3e-3),
    ),
    "digits": Track(
        {"learn.rounds": 10, "learn.local_steps": 9, "learn.batch": 16},
        (GLOBAL, "sflam-mixed", "sflam", "sfl-v2", "fedlora"),
        (1e-3, 3e-3),
    ),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training run."""

    method: str
    rate: float
    scheme: str = "identity"
    bits: int = 16
    alpha: float = 0.5
    seed: int = 0

    @property
    def name(self) -> str:
        """Name of its folder."""
        kind = (
            self.method
            if self.method == REFERENCE
            else f"{self.method}-{self.scheme}{self.bits}-alpha{self.alpha:g}"
        )
        return f"{kind}-lr{self.rate:g}-seed{self.seed}"


def with_test(data: Path, split: str, out: Path) -> Path:
    """Return a folder of the training part and of one other part as the held-out one."""
    folder = out / f"data-{split}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in (("train", "train"), ("test", split)):
        if not (folder / f"{name}.parquet").exists():
            pq.write_table(pq.read_table(data / f"{source}.parquet"), folder / f"{name}.parquet")
    return folder


def tiny_gpt2(data: Path, out: Path) -> Path:
    """Return a folder with a GPT-2 of random weights, and a tokenizer of the words of the training part."""
    folder = out / "gpt2"
    if folder.exists():
        return folder
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    torch.manual_seed(0)
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordLevelTrainer(vocab_size=2000, special_tokens=["[PAD]", "[UNK]"])
    tokenizer.train_from_iterator(pq.read_table(data / "train.parquet")["sentence"].to_pylist(), trainer)
    shape = {"n_embd": 128, "n_layer": 4, "n_head": 4, "n_positions": 64}
    config = transformers.GPT2Config(vocab_size=2000, bos_token_id=0, eos_token_id=0, pad_token_id=0, **shape)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]"
    )
    fast.save_pretrained(folder)
    return folder


def job_of(cell: Cell, track: Track, places: Mapping[str, Any]) -> sflam.Job:
    """Return the job of a cell; central training takes as many rows as all devices together."""
    settings = {
        "seed": cell.seed,
        "data.alpha": cell.alpha,
        "fleet.devices": 10,
        "quant.scheme": cell.scheme,
        "quant.bits_up": cell.bits,
        "quant.bits_down": cell.bits,
        "learn.method": cell.method,
        "learn.lr": cell.rate,
        "learn.evaluate_every": 0,
        **track.settings,
        **places,
        **VARIANTS.get(cell.method, {}),
    }
    if cell.method == GLOBAL:
        settings["learn.server_batch"] = settings["learn.batch"]
    return sflam.load(None, [f"{key}={value}" for key, value in settings.items()])


def measure(cell: Cell, track: Track, places: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Return the result of a cell, from its file where it is finished."""
    file, folder = out / f"{cell.name}.json", out / "runs" / cell.name
    if file.exists():
        return dict(json.loads(file.read_text()))
    began, cpu = time.perf_counter(), time.process_time()
    result = trained(job_of(cell, track, places), folder)
    found = dataclasses.asdict(cell) | {
        "samples": result.samples,
        "bytes": result.bytes_up + result.bytes_down,
        "loss": result.loss,
        "accuracy": result.accuracy,
        "wall_s": round(time.perf_counter() - began, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
    }
    if places.get("data.label") != "" and "data.label" not in track.settings:
        scored = sflam.predict(folder)
        assert scored.labels is not None
        found["right"] = "".join("01"[int(hit)] for hit in scored.predicted == scored.labels)
    file.write_text(json.dumps(found))
    return found


def score(found: Mapping[str, Any]) -> float:
    """Return what is compared, larger is better: accuracy, or minus the loss of a language model."""
    return float(found["accuracy"]) if "right" in found else -float(found["loss"])


def trials(track: Track) -> list[Cell]:
    """Return the cells that choose each method's rate."""
    scheme, bits = track.schemes[0]
    return [
        *(Cell(REFERENCE, rate) for rate in track.rates),
        *(Cell(method, rate, scheme, bits) for method in track.methods for rate in track.rates),
    ]


def grid(track: Track, rates: Mapping[str, float], seeds: range) -> Iterator[Cell]:
    """Yield the cells that are scored, the most wanted first."""
    for seed in seeds:
        yield Cell(REFERENCE, rates[REFERENCE], seed=seed)
        for alpha in ALPHAS:
            yield Cell(track.methods[0], rates[track.methods[0]], *track.schemes[0], alpha, seed)
    for seed in seeds:
        for scheme, method, alpha in (
            (s, m, a) for s in track.schemes for m in track.methods for a in ALPHAS
        ):
            yield Cell(method, rates[method], *scheme, alpha, seed)


def differences(
    runs: Sequence[Mapping[str, Any]], central: Sequence[Mapping[str, Any]]
) -> tuple[float, float]:
    """Return the mean paired difference to central training and its standard error.

    In points of accuracy, paired by sample and averaged over seeds, so that the error is that of the sample of the
    data; in per cent of perplexity, paired by seed, for a language model.
    """
    if "right" in runs[0]:
        hits = [
            np.array([[int(bit) for bit in run["right"]] for run in rows]).mean(0) for rows in (runs, central)
        ]
        each = 100 * (hits[0] - hits[1])
    else:
        each = np.array([100 * math.expm1(a["loss"] - b["loss"]) for a, b in zip(runs, central, strict=True)])
    return float(each.mean()), float(each.std(ddof=1) / math.sqrt(len(each))) if len(each) > 1 else math.nan


def table(cells: Sequence[Mapping[str, Any]], rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a row per method, codec and skew: the mean score, and the paired difference with its lower limit."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for cell in cells:
        if cell["rate"] == rates[cell["method"]]:
            key = (
                cell["method"],
                cell["scheme"],
                cell["bits"],
                cell["alpha"] if cell["method"] != REFERENCE else "",
            )
            groups.setdefault(key, []).append(cell)
    central = {run["seed"]: run for run in groups.get((REFERENCE, "identity", 16, ""), [])}
    rows = []
    for (method, scheme, bits, alpha), all_runs in groups.items():
        runs = sorted((run for run in all_runs if run["seed"] in central), key=lambda run: run["seed"])
        text = "right" not in all_runs[0]
        row: dict[str, Any] = {
            "method": method,
            "codec": ""
            if method == REFERENCE
            else f"{scheme}, {bits} bits"
            if scheme != "identity"
            else "floats",
            "Dirichlet": alpha,
            "rate": rates[method],
            "seeds": len(all_runs),
            "perplexity" if text else "accuracy": round(
                float(np.mean([math.exp(run["loss"]) if text else run["accuracy"] for run in all_runs])), 4
            ),
            "against central": "",
            "lower 95 %": "",
            "MB": round(float(np.mean([run["bytes"] for run in all_runs])) / 1e6, 1),
        }
        if method != REFERENCE and runs:
            mean, error = differences(runs, [central[run["seed"]] for run in runs])
            row["against central"] = f"{mean:+.2f} {'%' if text else 'points'}"
            row["lower 95 %"] = f"{mean + (1.96 if text else -1.96) * error:+.2f}"
        rows.append(row)
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("track", choices=TRACKS)
    for name in ("model", "data", "out"):
        options.add_argument(f"--{name}", type=Path, required=name == "out")
    options.add_argument("--minutes", type=float, default=math.inf, help="start no cell that would end later")
    options.add_argument("--methods", nargs="+", help="compared with central training")
    options.add_argument("--seeds", type=int, default=3, help="seeds below this one")
    options.add_argument("--from-seed", type=int, default=0, help="the first of them")
    options.add_argument(
        "--rate", type=float, help="one learning rate for all, instead of those chosen by one run each"
    )
    options.add_argument("--table", action="store_true", help="run nothing, print what is there")
    options.add_argument("--json", action="store_true", help="one JSON object per line instead of tables")
    args = options.parse_args()
    if args.track != "digits" and args.data is None:
        options.error(f"{args.track} needs --data, a folder with train, validation and test.parquet")
    if args.track == "sentences" and args.model is None:
        options.error("sentences needs --model, a BERT encoder in Hugging Face format")
    introduce(machine(), as_json=args.json)
    track, out = TRACKS[args.track], args.out / args.track
    if args.methods:
        track = dataclasses.replace(track, methods=tuple(args.methods))
    out.mkdir(parents=True, exist_ok=True)
    began, longest = time.perf_counter(), 0.0

    def places(split: str) -> dict[str, Any]:
        if args.track == "digits":
            return {}
        found: dict[str, Any] = {"data.name": with_test(args.data, split, out)}
        return found | {"model.name": args.model if args.track == "sentences" else tiny_gpt2(args.data, out)}

    def all_of(cells: Sequence[Cell], split: str) -> list[dict[str, Any]]:
        nonlocal longest
        found, where = [], out / split
        where.mkdir(exist_ok=True)
        for number, cell in enumerate(cells):
            there = (where / f"{cell.name}.json").exists()
            late = time.perf_counter() - began + longest > 60 * args.minutes
            if not there and (args.table or late):
                continue
            found.append(measure(cell, track, places(split), where))
            if not there:
                longest = max(longest, found[-1]["wall_s"])
                left = sum(not (where / f"{other.name}.json").exists() for other in cells[number:])
                print(
                    f"{split} {cell.name}: {score(found[-1]):.4f} in {found[-1]['wall_s']:.0f} s; {left} cells left, "
                    f"about {left * longest / 60:.0f} minutes",
                    flush=True,
                )
        return found

    if args.rate:
        rates = dict.fromkeys((REFERENCE, *track.methods), args.rate)
    else:
        tried = all_of(trials(track), "validation")
        rates = {
            method: max((run for run in tried if run["method"] == method), key=score)["rate"]
            for method in dict.fromkeys(run["method"] for run in tried)
        }
    wanted = [
        cell
        for cell in dict.fromkeys(
            grid(
                track,
                dict.fromkeys((REFERENCE, *track.methods), 0.0) | rates,
                range(args.from_seed, args.seeds),
            )
        )
    ]
    cells = all_of([cell for cell in wanted if cell.rate], "test")
    show(
        table(cells, rates),
        as_json=args.json,
        title=f"{args.track}: rates {'given' if args.rate else 'chosen on the validation part'}",
    )


if __name__ == "__main__":
    main()
