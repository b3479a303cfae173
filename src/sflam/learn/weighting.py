"""What a device counts in the loss of a shared trunk, so that devices with more samples count for more.

The loss of an optimiser step is sum_k G s_k F_k over the devices with rows in its group, F_k the mean loss of device
k's rows there. In expectation over the draw of devices and rows, the mean gradient of a local step's G optimiser steps
is then the one of central training, sum_k n_k / n grad F_k (before Adam and clipping). Nothing is renormalised over
the devices present: a group with one device keeps that device's share. Weights act on the trunk alone: the gradient
that returns to a device stays that of its own mean.

    by device  s_k = v_k t_k / T_k, v_k = n_k / (n p_k): fixed local batches, p_k the chance that device k is drawn
    by row     s_k = b_k / (S B): local epochs, where every row counts alike and no further weight is due; G is that of
               a step of full mini-batches. Where chances differ, b_k / (K p_k B)
    by target  s_k = t_k / sum_j T_j: global sampling, where a step is one batch
    none       every device in a group counts one: sum_k F_k

With Poisson draws F_k is the sum over the rows that came, divided by the rows that are expected, min(B, n_k):
otherwise a step of one row would count as much as one of many. That acts on the device's gradient, too; devices count
by the rows of as many steps in passes, not by those that came.

G groups of the step; T_k targets of device k in it (its rows, or its tokens to be predicted), t_k of them and b_k rows
in the group; n_k samples of device k, n of all; S of K devices in the round, B rows of a full mini-batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from sflam.data.counting import counts_of
from sflam.data.settings import POISSON
from sflam.learn.grouping import count_groups
from sflam.learn.selection import Chances
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
    """Local epochs; ``full`` is S B, the rows of a step of full mini-batches.

    ``times`` is S / (K p_k) of each device; None where chances are equal, so that it is 1.
    """

    full: int
    groups: int | None
    times: Mapping[int, float] | None = None

    def __call__(self, share: Share) -> float:
        """Return b_k / (S B), times what is due to the device's chance."""
        alike = share.rows / self.full
        return alike if self.times is None else alike * self.times[share.device]


@dataclass(frozen=True)
class ByTarget:
    """Global sampling."""

    groups: int | None = None

    def __call__(self, share: Share) -> float:
        """Return t_k / sum_j T_j."""
        return share.targets / share.all


def weighting_of(
    learn: LearnSettings, sampling: str, samples: Mapping[int, int], chance: Chances, present: int
) -> Weighting | None:
    """Return what devices count in the loss of a shared trunk; None where each counts one.

    Args:
        learn: how a round is run.
        sampling: ``data.sampling``.
        samples: device -> n_k, of every device that the trunk may serve.
        chance: p_k of a device, S / K where as many of them are drawn uniformly.
        present: those that this round drew.
    """
    if sampling == "global":
        return ByTarget()
    if learn.practice.weights == "equal":
        return None
    if sampling == POISSON:  # a group is a device's rows or all rows, and rows are counted in F_k
        groups = present if learn.practice.server_update == "sequential" else 1
        times = _times(chance) or {}
        if learn.local_steps:
            return ByDevice(values_of(samples, chance), groups)
        return ByDevice({device: times.get(device, 1.0) / present for device in samples}, groups)
    if learn.local_steps:
        return ByDevice(values_of(samples, chance))
    full = present * learn.batch
    counts = {
        "sequential": present,
        "batched": 1,
        "mixed": count_groups(full, learn.batch, learn.server_batch),
    }
    return ByRow(full, counts[learn.practice.server_update], _times(chance))


def expected_rows(learn: LearnSettings, sampling: str, samples: Mapping[int, int]) -> dict[int, int]:
    """Return device -> the rows that its losses count, whatever came; empty where they count those that came."""
    return {d: min(learn.batch, n) for d, n in samples.items()} if sampling == POISSON else {}


def values_of(samples: Mapping[int, int], chance: Chances) -> dict[int, float]:
    """Return v_k = n_k / (n p_k) of every device that may be drawn, with its ``chance`` p_k."""
    total = sum(samples.values())
    each = chance if isinstance(chance, dict) else dict.fromkeys(samples, chance)
    return {device: count / total / each[device] for device, count in samples.items() if each[device]}


def _times(chance: Chances) -> dict[int, float] | None:
    """Return S / (K p_k) of every device that may be drawn; None where it is 1 for all."""
    if not isinstance(chance, dict):
        return None
    mean = sum(chance.values()) / len(chance)
    return {device: mean / own for device, own in chance.items() if own}


def counted(
    learn: LearnSettings,
    sampling: str,
    trained: Mapping[int, int],
    held: Mapping[int, int],
    chance: Chances = 1.0,
) -> list[float]:
    """Return what each device of a round counts in the average of what the devices trained.

    The rows it trained on; the samples it holds where devices are weighted and all make as many local steps. Where
    devices with more samples are drawn more often, that over the chance: a device does not count for its samples twice.

    Args:
        learn: how a round is run.
        sampling: ``data.sampling``.
        trained: device -> rows of the round.
        held: device -> n_k.
        chance: p_k.
    """
    by_samples = learn.counts_held(sampling)
    counts: dict[int, float] = {
        device: counts_of(learn, sampling, rows, held[device]) for device, rows in trained.items()
    }
    if isinstance(chance, dict) and (by_samples or not learn.local_steps):
        counts = {device: count / chance[device] for device, count in counts.items()}
    return list(counts.values())
