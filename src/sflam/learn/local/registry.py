"""The rules for a device's own learning, by the names of ``learn.local``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from sflam.data.batches import rows_of_round
from sflam.learn.examples import Examples
from sflam.learn.local.fedlc import FedLC
from sflam.learn.local.fedprox import FedProx
from sflam.learn.local.rule import LocalRule
from sflam.learn.local.scaffold import Scaffold
from sflam.learn.settings import LearnSettings
from sflam.learn.settings.practice import LOCALS
from sflam.learn.weighting import counted

RULES: dict[str, type[LocalRule]] = {
    "plain": LocalRule,
    "fedprox": FedProx,
    "scaffold": Scaffold,
    "fedlc": FedLC,
}

assert tuple(RULES) == LOCALS, "practice.py names exactly the rules that exist"


def local_rule(
    learn: LearnSettings, sampling: str, examples: Examples, parts: Mapping[int, NDArray[Any]]
) -> LocalRule:
    """Return the rule of ``learn.local`` for the devices that hold ``parts`` of the examples.

    Args:
        learn: how a round is run.
        sampling: ``data.sampling``.
        examples: the training samples.
        parts: device -> its samples, int64 [n_k].
    """
    kind = RULES[learn.practice.local]
    labels = None
    if kind is FedLC:
        labels = {d: torch.from_numpy(examples.dataset.labels[own]).long() for d, own in parts.items()}
    return kind(
        learn, shares_of(learn, sampling, parts), labels=labels, classes=len(examples.dataset.classes)
    )


def shares_of(
    learn: LearnSettings, sampling: str, parts: Mapping[int, Sequence[int] | NDArray[Any]]
) -> dict[int, float]:
    """Return p_k of every device: its weight in the average of a round in which all take part."""
    held = {device: len(part) for device, part in parts.items()}
    trained = {
        device: rows_of_round(count, learn.batch, learn.local_steps, learn.local_epochs)
        for device, count in held.items()
    }
    counts = counted(learn, sampling, trained, held)
    every = sum(counts)
    return {device: count / every for device, count in zip(held, counts, strict=True)}
