"""Error, bytes and time of the quantizers: ``python benchmarks/codecs.py [--json]``.

Six kinds of tokens:

    gaussian      white noise, d = 768: the hardest there is at its energy
    heavy         Student's t with 3 degrees of freedom, d = 768: every token has outliers
    columns       gaussian, but 6 of the 768 columns 20 times larger: what is reported of the hidden states of
                  large language models (Dettmers et al., LLM.int8(), NeurIPS 2022); made up here, not measured
    shifted       gaussian plus 10: a mean far beyond the spread
    activations   what crosses up at ``--cut`` of the bundled ViT on digits, d = 96, after ``--rounds`` rounds
    gradients     what crosses down there

The first table gives the normalised error |decode(encode(x)) - x|^2 / |x|^2 in dB, mean over the tokens' energy,
beside the rate-distortion bound 2^(-2 b) of white Gaussian values. The second gives the least bits, and with side
information the bytes, that keep the error below a target. The third asks whether codes could be sent in fewer bits:
their entropy, zlib at level 1, and what zlib costs. The last gives times for a mini-batch of ViT-base activations.
"""

from __future__ import annotations

import zlib
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from common import in_turns, parser, set_up, show

from sflam import config
from sflam.codec.messages import GradientFrame, StepFrame
from sflam.codec.packing import unpack
from sflam.codec.quantizer import Floats
from sflam.codec.quantizers import quantizer
from sflam.learn.evaluate import Score
from sflam.learn.examples import Minibatch
from sflam.learn.exchange import Exchange, Position
from sflam.learn.frames import Answer
from sflam.learn.round import train
from sflam.learn.split_fleet import LocalFleet
from sflam.run.assemble import assemble
from sflam.sizes import MAX_BITS, payload_bits

SCHEMES = ("uniform", "rotated")
TARGETS_DB = (-10, -20, -30, -40)
TIMED = (32 * 197, 768)


class Watched(Exchange):
    """A exchange that keeps a copy of the tokens it sends."""

    up: ClassVar[list[torch.Tensor]] = []
    down: ClassVar[list[torch.Tensor]] = []

    def step_message(
        self, at: Position, hidden: torch.Tensor | None, batch: Minibatch, *, labels: bool = True
    ) -> StepFrame:
        """Keep the activations [B, T, d]."""
        assert hidden is not None
        self.up.append(hidden.detach().clone())
        return super().step_message(at, hidden, batch, labels=labels)

    def answer_message(self, at: Position, answer: Answer, lengths: torch.Tensor | None) -> GradientFrame:
        """Keep the gradient [B, T, d]."""
        assert answer.gradient is not None
        self.down.append(answer.gradient.detach().clone())
        return super().answer_message(at, answer, lengths)


def crossed(cut: int, rounds: int, seed: int, more: Sequence[str]) -> tuple[Floats, Floats]:
    """Return the activations and gradients [n, d] of one round of the default job, after ``rounds`` rounds.

    ``more`` are settings of another job: its model and data, say.
    """
    overrides = [f"model.cut={cut}", f"seed={seed}", "learn.device=cpu", "quant.scheme=identity", *more]
    assembly = assemble(config.load(None, overrides))
    fleet, state = assembly.fleet, assembly.state
    assert isinstance(fleet, LocalFleet)
    fleet.exchange = Watched(**vars(fleet.exchange))
    for _ in train(fleet, state, lambda _: Score(0.0, 0.0), range(rounds + 1)):
        up, down = (
            np.concatenate([part.flatten(0, 1).numpy() for part in parts])
            for parts in (Watched.up, Watched.down)
        )
        Watched.up.clear()
        Watched.down.clear()
    return up, down


def error_db(x: Floats, scheme: str, bits: int, seeds: int) -> float:
    """Return the normalised squared error in dB, a mean over ``seeds`` roundings."""
    codec, exact = quantizer(scheme), x.astype(np.float64)
    squared = [((codec.decode(codec.encode(x, bits, seed)) - exact) ** 2).sum() for seed in range(seeds)]
    return round(float(10 * np.log10(np.mean(squared) / (exact**2).sum())), 2)


def errors(data: Mapping[str, Floats], most: int, seeds: int) -> dict[tuple[str, str], list[float]]:
    """Return dB by bits, from 1 bit on, for every kind of tokens and scheme."""
    return {
        (name, scheme): [error_db(x, scheme, bits, seeds) for bits in range(1, most + 1)]
        for name, x in data.items()
        for scheme in SCHEMES
    }


def error_table(found: Mapping[tuple[str, str], list[float]]) -> list[dict[str, Any]]:
    """Return one row per kind of tokens and scheme, and the bound."""
    rows = [
        {"tokens": name, "scheme": scheme} | {f"{bit + 1} bits": db for bit, db in enumerate(values[:8])}
        for (name, scheme), values in found.items()
    ]
    bound = {f"{bits} bits": round(-20 * bits * float(np.log10(2)), 2) for bits in range(1, 9)}
    return [*rows, {"tokens": "gaussian", "scheme": "bound"} | bound]


def size_table(
    data: Mapping[str, Floats], found: Mapping[tuple[str, str], list[float]]
) -> list[dict[str, Any]]:
    """Return the least bits per value, and bytes per token, at which the error is below each target."""
    rows = []
    for name, x in data.items():
        dim = x.shape[1]
        for target in TARGETS_DB:
            row: dict[str, Any] = {"tokens": name, "error below dB": target}
            for scheme in SCHEMES:
                enough = [bits for bits, db in enumerate(found[name, scheme], start=1) if db <= target]
                row[f"{scheme} bits"] = enough[0] if enough else f"over {MAX_BITS}"
                row[f"{scheme} bytes"] = payload_bits(1, dim, enough[0], scheme) / 8 if enough else None
            ours, theirs = row["rotated bytes"], row["uniform bytes"]
            row["bytes saved %"] = round(100 * (1 - ours / theirs), 1) if ours and theirs else None
            rows.append(row)
    return rows


def entropy_table(data: Mapping[str, Floats], args: Namespace) -> list[dict[str, Any]]:
    """Return what coding the codes could save, and what zlib does save."""
    rows = []
    for name, x in data.items():
        for scheme in SCHEMES:
            for bits in (2, 4, 8):
                packed = quantizer(scheme).encode(x, bits, args.seed)
                raw = packed.codes.tobytes()
                counts = np.bincount(unpack(packed.codes, bits, x.size), minlength=1)
                share = counts[counts > 0] / x.size
                entropy = float(-(share * np.log2(share)).sum())
                times = in_turns(
                    {"zlib": lambda raw=raw: zlib.compress(raw, 1)},
                    repeats=3,
                    seconds=0,
                    device=torch.device("cpu"),
                )
                rows.append(
                    {
                        "tokens": name,
                        "scheme": scheme,
                        "bits": bits,
                        "entropy": round(entropy, 3),
                        "could save %": round(100 * (1 - entropy / bits), 1),
                        "zlib saves %": round(100 * (1 - len(zlib.compress(raw, 1)) / len(raw)), 1),
                        "zlib ns/value": round(
                            1e6 * times["zlib"].record(torch.device("cpu"))["cpu_ms"] / x.size, 1
                        ),
                    }
                )
    return rows


def time_table(args: Namespace) -> list[dict[str, Any]]:
    """Return CPU time per call, in ms."""
    x = np.random.default_rng(args.seed).standard_normal(TIMED, np.float32)
    device, rows = torch.device("cpu"), []
    for bits in (4, 8):
        runs = {}
        for scheme in SCHEMES:
            codec = quantizer(scheme)
            packed = codec.encode(x, bits, 0)
            runs[scheme, "encode"] = lambda codec=codec, bits=bits: codec.encode(x, bits, 0)
            runs[scheme, "decode"] = lambda codec=codec, packed=packed: codec.decode(packed)
        times = in_turns(runs, repeats=args.repeats, seconds=args.seconds, device=device)
        for scheme in SCHEMES:
            row: dict[str, Any] = {"scheme": scheme, "bits": bits}
            for what in ("encode", "decode"):
                found = times[scheme, what].record(device)
                row |= {f"{what} ms": found["cpu_ms"], f"{what} least": found["cpu_ms_least"]}
            rows.append(row)
    return rows


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--cut", type=int, default=1, help="blocks on the device")
    options.add_argument("--rounds", type=int, default=2, help="rounds trained before the cut is looked at")
    options.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    options.add_argument("--tokens", type=int, default=1000, help="random tokens")
    options.add_argument("--seeds", type=int, default=10, help="roundings per error")
    args = options.parse_args()
    set_up(args)
    draw = np.random.default_rng(args.seed)
    activations, gradients = crossed(args.cut, args.rounds, args.seed, args.overrides)
    gaussian = draw.standard_normal((args.tokens, 768), np.float32)
    columns = gaussian.copy()
    columns[:, draw.choice(768, 6, replace=False)] *= 20
    data: dict[str, Floats] = {
        "gaussian": gaussian,
        "heavy": draw.standard_t(3, gaussian.shape).astype(np.float32),
        "columns": columns,
        "shifted": gaussian + np.float32(10),
        "activations": activations,
        "gradients": gradients,
    }
    found = errors(data, MAX_BITS, args.seeds)
    show(error_table(found), as_json=args.json, title="normalised squared error, dB")
    show(size_table(data, found), as_json=args.json, title="least size below an error")
    show(entropy_table(data, args), as_json=args.json, title="codes in fewer bits")
    show(time_table(args), as_json=args.json, title=f"CPU time, {list(TIMED)} float32")


if __name__ == "__main__":
    main()
