"""How a round's seconds add up: a chain, a barrier at every step, or a relay; planner, referee and clock call this.

    chain     T = max_k [H (tau^f + t + tau^srv + t^dn + tau^b) + t^agg]                                   (1.13)
    barrier   T = sum_i [max_k (tau^f + t) + tau^srv + max_k (t^dn + tau^b)]                               (1.14)
    relay     T = sum_k of each device's own chain

At a barrier all devices of a step i wait for each other: before the trunk's turn, and before the next step. Adapters
come down before the first forward and go up after the last backward, inside of those maxima; no step waits for a device
that has no rows in it. With labels on the device there is one more stage between, of the head. K devices, S stages.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sflam.cost.traffic import Traffic, expected_traffic
from sflam.network.network import Floats
from sflam.workload import Workload

CHAIN, BARRIER, RELAY = "chain", "barrier", "relay"
TIMINGS = (CHAIN, BARRIER, RELAY)


@dataclass(frozen=True, kw_only=True, eq=False)
class Lockstep:
    """The steps of a round in which devices wait for each other.

    Attributes:
        steps: what a step holds, in the order of time.
        count: how often each comes, one after the other.
        one_by_one: whether the trunk answers a device before it hears the next one's second exchange.
    """

    steps: tuple[Traffic, ...]
    count: tuple[int, ...]
    one_by_one: bool = False

    def only(self, index: NDArray[np.int64]) -> Lockstep:
        """Return the steps of the devices at ``index``."""
        steps = tuple(step.only(index) for step in self.steps)
        return Lockstep(steps=steps, count=self.count, one_by_one=self.one_by_one)

    @property
    def shares(self) -> Floats:
        """[I, K] share of a device's rows that a step has; of one without rows, all in the first."""
        rows = np.array([step.rows for step in self.steps], float)
        whole = np.array(self.count, float) @ rows
        share: Floats = np.divide(rows, whole, out=np.zeros_like(rows), where=whole > 0)
        share[0, whole <= 0] = 1.0 / self.count[0]
        return share


def in_order(steps: list[Traffic], *, one_by_one: bool = False) -> Lockstep:
    """Return steps of a round, one after another, where equal ones that follow each other are one."""

    def held(step: Traffic) -> tuple[bytes, ...]:
        return tuple(np.asarray(each, float).tobytes() for each in vars(step).values())

    runs = [list(run) for _, run in groupby(steps, held)]
    return Lockstep(
        steps=tuple(run[0] for run in runs), count=tuple(len(run) for run in runs), one_by_one=one_by_one
    )


def expected_steps(
    workload: Workload, steps: ArrayLike, count: int, *, together: int = 0, one_by_one: bool = False
) -> Lockstep:
    """Return the steps of devices that have ``steps`` mini-batches each, the last of them perhaps a fraction.

    Args:
        workload: what a mini-batch costs.
        steps: mini-batches, one number or [K].
        count: devices, K.
        together: steps of the fleet over which each device's rows are spread evenly; 0 where each has its own.
        one_by_one: see :class:`Lockstep`.
    """
    own = np.broadcast_to(np.asarray(steps, float), (count,))
    if together:
        even = expected_traffic(workload, own / together, count)
        return Lockstep(steps=(even,), count=(together,), one_by_one=one_by_one)
    ends = np.unique(np.concatenate([np.floor(own), np.ceil(own)]))
    ends = ends[ends > 0]
    begins = np.concatenate([[0.0], ends[:-1]])
    held = [expected_traffic(workload, np.clip(own - begin, 0.0, 1.0), count) for begin in begins]
    return Lockstep(
        steps=tuple(held), count=tuple((ends - begins).astype(int).tolist()), one_by_one=one_by_one
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Stages:
    """Which share of a device's round is in which stage; [S, K], in the order of time, each times ``count`` 1.

    Attributes:
        count: [S] how often a stage comes.
        step: [S] number of the step, or run of equal steps, that it belongs to.
        compute: of its computing.
        up: of what it sends in steps.
        down: of what it receives in steps.
        fetch: of its adapters on the way down.
        hand: of its adapters on the way up.
    """

    count: Floats
    step: NDArray[np.int64]
    compute: Floats
    up: Floats
    down: Floats
    fetch: Floats
    hand: Floats

    def seconds(
        self, *, compute: Floats, up: Floats, down: Floats, fetch: Floats | float, hand: Floats | float
    ) -> Floats:
        """Return the s [S, K] of each device in every stage, from those [K] of its whole round."""
        found: Floats = (
            self.compute * compute + self.up * up + self.down * down + self.fetch * fetch + self.hand * hand
        )
        return found

    def total(self, seconds: Floats) -> float:
        """Return the s of all stages: those of the slowest device in each."""
        return float(self.count @ seconds.max(axis=1))

    def ends(self, seconds: Floats, hand: Floats | float) -> Floats:
        """Return the s [K] at which a device's own last step is done, the trunk's turns left out.

        Args:
            seconds: [S, K] of each device in every stage.
            hand: [K] s of sending adapters, which comes after it.
        """
        whole = self.count * seconds.max(axis=1)
        done = np.array([whole[self.step <= step].sum() for step in self.step])
        last = np.array(
            [self.step[at] != self.step[min(at + 1, len(self.step) - 1)] for at in range(len(done))]
        )
        last[-1] = True
        present = (self.compute > 0) | (self.up > 0) | (self.down > 0)
        found = np.zeros(seconds.shape[1])
        for at in np.flatnonzero(last):
            here = present[self.step == self.step[at]].any(axis=0)
            own = seconds[at] - self.hand[at] * hand
            found = np.where(here, done[at] - (seconds[at].max() - own), found)
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class StepBits:
    """What crosses in every step, bits [I, K]; ``averaged`` [K] of gradients of device halves, each way, a step."""

    first_up: Floats
    second_up: Floats
    first_down: Floats
    second_down: Floats
    averaged: Floats


def stages_of(
    lockstep: Lockstep,
    bits: StepBits,
    *,
    forward: Floats,
    head: Floats,
    backward: Floats,
    adapters: bool,
    exchanges: int,
) -> Stages:
    """Return the stages of a round.

    Args:
        lockstep: its steps.
        bits: what crosses in them.
        forward: [K] share of a device's computing that is its forward's.
        head: of the head's, forward and backward, with labels on the device.
        backward: of the rest.
        adapters: whether adapters move inside of the round.
        exchanges: of a step, 1 or 2.
    """
    shares, count = lockstep.shares, list(lockstep.count)
    even = np.ones_like(shares) * bits.averaged
    ups, downs = bits.first_up + bits.second_up + even, bits.first_down + bits.second_down + even
    sent, received = np.array(count, float) @ ups, np.array(count, float) @ downs
    none = np.zeros(shares.shape[1])

    def of(part: Floats, whole: Floats, otherwise: Floats) -> Floats:
        return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), otherwise)

    runs = [(index, number) for index, number in enumerate(count)]
    if adapters:  # first and last steps have them, the others not
        runs = _with_ends(runs)
    rows: list[tuple[Any, ...]] = []
    for place, (i, number) in enumerate(runs):
        fetch = none + 1.0 * (adapters and place == 0)
        hand = none + 1.0 * (adapters and place == len(runs) - 1)
        first = of(bits.first_up[i], sent, shares[i])
        rows.append((number, place, shares[i] * forward, first, none, fetch, none))
        if exchanges > 1:
            middle = (
                shares[i] * head,
                of(bits.second_up[i], sent, none),
                of(bits.first_down[i], received, none),
            )
            alone = np.eye(len(none)) if lockstep.one_by_one else np.ones((1, len(none)))
            rows += [(number, place, *(part * who for part in middle), none, none) for who in alone]
        last = of(even[i], sent, none), of(bits.second_down[i] + even[i], received, shares[i])
        rows.append((number, place, shares[i] * backward, *last, none, hand))
    columns = [np.array(column, float) for column in zip(*rows, strict=True)]
    return Stages(
        count=columns[0],
        step=columns[1].astype(np.int64),
        compute=columns[2],
        up=columns[3],
        down=columns[4],
        fetch=columns[5],
        hand=columns[6],
    )


def _with_ends(runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return runs of equal steps where the first step and the last one stand alone."""
    (first, number), rest = runs[0], runs[1:]
    runs = [(first, 1), *([(first, number - 1)] if number > 1 else []), *rest]
    last, number = runs[-1]
    return [*runs[:-1], *([(last, number - 1)] if number > 1 else []), (last, 1)]
