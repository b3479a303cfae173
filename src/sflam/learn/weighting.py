"""What a device counts in the loss of a shared trunk, so that devices with more samples count for more.

The loss of an optimiser step is sum_k G s_k F_k over the devices with rows in its group, F_k the mean loss of device
k's rows there. In expectation over the draw of devices and rows, the mean gradient of a local step's G optimiser steps
is then the one of central training, sum_k n_k / n grad F_k (before Adam and clipping). Nothing is renormalised over
the devices present: a group with one device keeps that device's share. Weights act on the trunk alone: the gradient
that returns to a device stays that of its own mean.

    by device  s_k = v_k t_k / T_k, v_k = n_k / (n p_k): fixed local batches, p_k the chance that device k is drawn
    by row     s_k = b_k / (S B): local epochs, where every row counts alike and no further weight is due; G is that of
               a step of full mini-batches
    by target  s_k = t_k / sum_j T_j: global sampling, where a step is one batch
    none       every device in a group counts one: sum_k F_k

G groups of the step; T_k targets of device k in it (its rows, or its tokens to be predicted), t_k of them and b_k rows
in the group; n_k samples of device k, n of all; S devices of the round, B rows of a full mini-batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from sflam.learn.settings import LearnSettings


@dataclass(frozen=True)
class Share:
    """What a device has in one group of a step.

    Attributes:
        device: its index.
        rows: b_k, its rows in the group.
        targets: t_k, their targets.
        own: T_k, the targets of its rows in the step.
        all: the targets of all rows in the step.
    """

    device: int
    rows: int
    targets: int
    own: int
    all: int


class Weighting(Protocol):
    """Returns s_k of a device in a group."""

    @property
    def groups(self) -> int | None:
        """G; None for the number of groups there are."""

    def __call__(self, share: Share) -> float:
        """Return s_k."""


@dataclass(frozen=True)
class ByDevice:
    """Fixed local batches; ``value`` is v_k of each device."""

    value: Mapping[int, float]
    groups: int | None = None

    def __call__(self, share: Share) -> float:
        """Return v_k t_k / T_k."""
        return self.value[share.device] * share.targets / share.own


@dataclass(frozen=True)
class ByRow:
    """Local epochs; ``full`` is S B, the rows of a step of full mini-batches."""

    full: int
    groups: int | None

    def __call__(self, share: Share) -> float:
        """Return b_k / (S B)."""
        return share.rows / self.full


@dataclass(frozen=True)
class ByTarget:
    """Global sampling."""

    groups: int | None = None

    def __call__(self, share: Share) -> float:
        """Return t_k / sum_j T_j."""
        return share.targets / share.all


def weighting_of(
    learn: LearnSettings, sampling: str, samples: Mapping[int, int], chance: float, present: int
) -> Weighting | None:
    """Return what devices count in the loss of a shared trunk; None where each counts one.

    Args:
        learn: how a round is run.
        sampling: ``data.sampling``.
        samples: device -> n_k, of every device that the trunk may serve.
        chance: S / K, p_k of a device, as many of which a round draws uniformly.
        present: those that this round drew.
    """
    if sampling == "global":
        return ByTarget()
    if learn.practice.weights == "equal":
        return None
    if learn.local_steps:
        return ByDevice(values_of(samples, chance))
    full = {"sequential": present, "batched": 1, "mixed": learn.batch}
    return ByRow(present * learn.batch, full[learn.practice.server_update])


def values_of(samples: Mapping[int, int], chance: float) -> dict[int, float]:
    """Return v_k = n_k / (n p_k) of every device, where each is drawn with the same ``chance`` p_k."""
    total = sum(samples.values())
    return {device: count / total / chance for device, count in samples.items()}


def counted(
    learn: LearnSettings, sampling: str, trained: Mapping[int, int], held: Mapping[int, int]
) -> list[int]:
    """Return what each device of a round counts in the average of what the devices trained.

    The rows it trained on; the samples it holds where devices are weighted and all make as many local steps.

    Args:
        learn: how a round is run.
        sampling: ``data.sampling``.
        trained: device -> rows of the round.
        held: device -> n_k.
    """
    by_samples = learn.practice.weights == "samples" and learn.local_steps and sampling == "local"
    return [held[device] if by_samples else rows for device, rows in trained.items()]
