"""What a finished run has: its adapters, and what its devices gave away round by round; and a run cut in two."""

from __future__ import annotations

import torch

import sflam
from sflam.learn import checkpoint
from sflam.records import history


def adapters(folder):
    """Return the adapters of the newest checkpoint."""
    return checkpoint.load(folder / "checkpoints")["adapters"]


def spent(folder):
    """Return what every round's record says was given away."""
    return [record.spent for record in history.read(folder / "history.jsonl")[1]]


def expect_resumed_is_whole(job, folder):
    """Train a job, and again as a run that is cut after its first round: adapters and what was spent are the same."""
    sflam.train(job, folder / "whole")
    begun = sflam.start(job, folder / "cut")
    next(begun.rounds())
    for _ in sflam.resume(folder / "cut").rounds():
        pass
    whole, cut = adapters(folder / "whole"), adapters(folder / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert spent(folder / "whole") == spent(folder / "cut")
