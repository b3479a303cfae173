"""DP-SGD of what devices train: the accuracy that is left, epsilon, and who is told from who was not trained on.

    python benchmarks/clipped_samples.py [--clip C] [--noises S ...] [--seeds N ...] [--set KEY=VALUE]

Every run is the bundled job in one process, at another noise on the sum of clipped gradients; the first has neither
clip nor noise. The table has the last accuracy, the mean over seeds and the least; the largest epsilon of a device and
what it covers, of the first seed; and the area under the ROC curve of the audit's attacks on membership, by the loss
and by the norm of the gradient at the cut, in the mean over seeds (a guess has 0.5).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from common import introduce, machine, show

import sflam
from sflam.privacy.membership import separation
from sflam.privacy.observer import Observer
from sflam.privacy.subject import subject_of
from sflam.records.history import read

COUNTED = 400
"""Members and others that are told apart."""


def told_apart(folder: Path) -> tuple[float, float]:
    """Return the area under the ROC curve by the loss, and by the norm of the gradient at the cut."""
    subject = subject_of(folder)
    cut = subject.job.model.cut
    observer = Observer(subject.backbone, subject.model, cut, subject.job.quant.scheme, subject.job.seed)
    found = []
    for pool, stream in ((subject.members, "counted"), (subject.public, "public")):
        batch = subject.drawn(pool, COUNTED, stream)
        losses, back = subject.graded(observer.exact(batch), batch, cut)
        found.append((losses, back.double().flatten(1).norm(dim=1).cpu().numpy()))
    (loss, norm), (other_loss, other_norm) = found
    return separation(loss, other_loss), separation(norm, other_norm)


def trained(settings: list[str]) -> dict[str, Any]:
    """Return what one run gives."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        result = sflam.train(sflam.load(None, settings), run)
        spent = read(run / "history.jsonl")[1][-1].spent
        loss, norm = told_apart(run)
    return {
        "accuracy": float(result.accuracy or 0.0),
        "epsilon": max(spent.epsilon) if spent else None,
        "covers": spent.covers if spent else "",
        "by loss": loss,
        "by gradient": norm,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--clip", type=float, default=0.1)
    options.add_argument("--noises", nargs="+", type=float, default=[0.0, 1.0, 4.0])
    options.add_argument("--seeds", nargs="+", type=int, default=[0])
    options.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    options.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
    args = options.parse_args()
    introduce(machine(), as_json=args.json)
    rows = []
    for noise in (None, *args.noises):
        own = [] if noise is None else [f"privacy.sample_clip={args.clip}", f"privacy.sample_noise={noise}"]
        found = [trained([*own, f"seed={seed}", *args.overrides]) for seed in args.seeds]
        accuracies = [each["accuracy"] for each in found]
        epsilon = found[0]["epsilon"]
        rows.append(
            {
                "noise, in clips": "as it is" if noise is None else f"{noise:g}",
                "accuracy": f"{mean(accuracies):.3f} ({min(accuracies):.3f})",
                "epsilon": "none" if epsilon is None else f"{epsilon:.3g}, {found[0]['covers']}",
                **{
                    f"members {way}": f"{mean(each[way] for each in found):.3f}"
                    for way in ("by loss", "by gradient")
                },
            }
        )
    show(rows, as_json=args.json, title=f"clip {args.clip:g}")


if __name__ == "__main__":
    main()
