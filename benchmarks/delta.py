"""Where ``quant.delta`` pays: ``python benchmarks/delta.py [--bits 2 3 4] [--lr 3e-3 5e-4] [--seeds 0] [--json]``.

The default job, with and without, at the same bits. The error is that of the activations that the server trains on,
|received - sent|^2 / |sent|^2 in dB, over the mini-batches of the first, the second and the last round; the change is
|x - a|^2 / |x|^2 in dB, what the last round really had to say of samples that the server knew.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from common import introduce, machine, show

import sflam
from sflam.learn.device import Devices
from sflam.learn.exchange import Exchange


class Watch:
    """Sums over the mini-batches of each round."""

    def __init__(self) -> None:
        self.hidden: dict[int, torch.Tensor] = {}
        self.last: dict[tuple[int, int], torch.Tensor] = {}
        self.sums: dict[int, list[float]] = {}

    def run(self, settings: list[str]) -> sflam.Result:
        """Return the result of a run that is watched."""
        forward, receive, begin = Devices.forward, Exchange.receive_step, Exchange.step_message

        def forwarded(devices: Devices, *given: Any, **named: Any) -> dict[int, torch.Tensor]:
            self.hidden = forward(devices, *given, **named)
            return self.hidden

        def announced(exchange: Exchange, at: Any, hidden: Any, batch: Any, **named: Any) -> Any:
            self.ids = getattr(self, "ids", {}) | {at.device: batch.ids}
            return begin(exchange, at, hidden, batch, **named)

        def received(exchange: Exchange, message: Any, *given: Any) -> Any:
            frame = receive(exchange, message, *given)
            sent = self.hidden[message.device].float()
            sums = self.sums.setdefault(message.round, [0.0, 0.0, 0.0])
            for index, sample in enumerate(self.ids[message.device]):
                before = self.last.get((message.device, sample), torch.zeros_like(sent[index]))
                sums[2] += float((sent[index] - before).square().sum())
                self.last[message.device, sample] = frame.hidden[index].clone()
            sums[0] += float((frame.hidden - sent).square().sum())
            sums[1] += float(sent.square().sum())
            return frame

        with (
            tempfile.TemporaryDirectory() as folder,
            patch.object(Devices, "forward", forwarded),
            patch.object(Exchange, "receive_step", received),
            patch.object(Exchange, "step_message", announced),
        ):
            return sflam.train(sflam.load(None, settings), Path(folder) / "run")

    def decibels(self, round: int, which: int = 0) -> float:
        """Return the error of a round, or (2) the change since the visit before."""
        sums = self.sums[round]
        return 10 * math.log10(sums[which] / sums[1])


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--bits", type=int, nargs="+", default=[2, 3, 4])
    options.add_argument("--lr", nargs="+", default=["3e-3", "5e-4"])
    options.add_argument("--seeds", type=int, nargs="+", default=[0])
    options.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    options.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
    args = options.parse_args()
    introduce(machine(), as_json=args.json)
    rows: list[dict[str, Any]] = []
    for lr in args.lr:
        for bits in args.bits:
            for delta in ("false", "true"):
                watches, results = [Watch() for _ in args.seeds], []
                for seed, watch in zip(args.seeds, watches, strict=True):
                    asked = [
                        f"seed={seed}",
                        f"quant.bits_up={bits}",
                        f"quant.delta={delta}",
                        f"learn.lr={lr}",
                    ]
                    results.append(watch.run([*asked, "learn.evaluate_every=0", *args.overrides]))
                last = results[0].rounds - 1
                row: dict[str, Any] = {"lr": lr, "bits up": bits, "delta": delta}
                for name, round, which in (
                    ("first dB", 0, 0), ("second dB", 1, 0), ("last dB", last, 0), ("change dB", last, 2),
                ):  # fmt: skip
                    row[name] = round_to(
                        statistics.mean(watch.decibels(round, which) for watch in watches), 1
                    )
                row["accuracy"] = round_to(statistics.mean(result.accuracy for result in results), 4)
                row["loss"] = round_to(statistics.mean(result.loss for result in results), 4)
                row["up MB"] = round_to(statistics.mean(result.bytes_up for result in results) / 1e6, 2)
                rows.append(row)
                if args.json:
                    show([row], as_json=True)
    if not args.json:
        show(rows, as_json=False, title="digits, means over seeds")


def round_to(value: float, digits: int) -> float:
    """Return a number as the table shows it."""
    return round(value, digits)


if __name__ == "__main__":
    main()
