"""A device's cycle step by step, where its steps wait for a trunk that serves all: where it is, and what it has spent.

A step has three parts: the way up (computing to the cut, sending), the trunk's (waiting for it, and its computing), and
the way down (receiving, computing back). The first way up begins with fetching adapters, the last way down ends with
handing them on. Joules of a part are spent evenly over its seconds, static power always. H steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sflam.cost.timing import Stages
from sflam.simulate.arrivals import Spent

UP, TRUNK, DOWN, DONE = "up", "trunk", "down", "done"
"""Where in a step a device is; ``DONE`` has delivered."""
KINDS = ("compute_j", "transmit_j", "adapter_j", "receive_j")
"""Of joules, those that a device spends by what it is doing."""

Part = tuple[float, str, float]
"""Seconds, the kind of joules, and joules."""


@dataclass(kw_only=True)
class StepCycle:
    """What a device does once, and where in it the device is.

    Attributes:
        device: whose.
        number: of the device's own cycles, from 0.
        version: that it downloaded.
        begun: s on the clock of the run.
        cost: :data:`sflam.simulate.arrivals.COLUMNS` of the cycle, ``static_w`` and ``server_j``; ``server_s`` are the
            seconds at the trunk, waiting included, of the steps behind it.
        shares: [H] of each step, the share of the cycle's computing before the trunk, sending, receiving, and computing
            behind it.
        turns: [H] s that the trunk computes for each step.
        step: it is in, from 0.
        phase: of the step.
        since: s on the clock at which the phase began.
        paid: kind -> J that are charged already.
    """

    device: int
    number: int
    version: int
    begun: float
    cost: dict[str, float]
    shares: tuple[tuple[float, float, float, float], ...]
    turns: tuple[float, ...]
    step: int = 0
    phase: str = UP
    since: float
    paid: dict[str, float]

    @property
    def steps_s(self) -> float:
        """Seconds of its local steps; of one that has delivered."""
        return sum(self.cost[name] for name in ("server_s", "down_s", "compute_s", "up_s"))

    @property
    def ends(self) -> float:
        """When it delivered, s on the clock of the run."""
        assert self.phase == DONE
        return self.since

    @property
    def until(self) -> float:
        """When its phase ends, s on the clock; of one that does not wait for the trunk."""
        return self.since + sum(seconds for seconds, _, _ in self._parts(self.step, self.phase))

    def arrive(self) -> None:
        """End a way up or down: what follows begins where it ended."""
        self.since = self.until
        if self.phase == UP:
            self.phase = TRUNK
        elif self.step + 1 < len(self.turns):
            self.step, self.phase = self.step + 1, UP
        else:
            self.phase = DONE

    def answer(self, now: float) -> None:
        """Leave the trunk at ``now`` s on the clock."""
        self.cost["server_s"] += now - self.since
        self.phase, self.since = DOWN, now

    def spent(self, now: float) -> dict[str, float]:
        """Return kind -> J spent until ``now`` s on the clock, those of the trunk for it included."""
        found = dict.fromkeys(KINDS, 0.0)
        order = (UP, TRUNK, DOWN)
        here = len(order) if self.phase == DONE else order.index(self.phase)
        for step in range(self.step + 1):
            for place, phase in enumerate(order):
                ended = step < self.step or place < here
                if phase == TRUNK or not (ended or place == here):
                    continue
                left = float("inf") if ended else now - self.since
                for seconds, kind, joules in self._parts(step, phase):
                    found[kind] += joules * (1.0 if left >= seconds else left / seconds)
                    left = max(0.0, left - seconds)
        answered = self.step + (here > order.index(TRUNK))
        whole = sum(self.turns)
        done = sum(self.turns[:answered]) / whole if whole else answered / len(self.turns)
        end = self.since if self.phase == DONE else now
        return found | {
            "server_j": self.cost["server_j"] * done,
            "idle_j": self.cost["static_w"] * (end - self.begun),
        }

    def kept(self) -> dict[str, Any]:
        """Return it as a checkpoint keeps it."""
        return asdict(self)

    def _parts(self, step: int, phase: str) -> tuple[Part, ...]:
        """Return what a device does in a phase of a step, one after another."""
        cost, (before, up, down, behind) = self.cost, self.shares[step]
        if phase == UP:
            steps = (
                (cost["compute_s"] * before, "compute_j", cost["compute_j"] * before),
                (cost["up_s"] * up, "transmit_j", cost["transmit_j"] * up),
            )
            return ((cost["fetch_s"], "receive_j", cost["fetch_j"]), *steps) if step == 0 else steps
        steps = (
            (cost["down_s"] * down, "receive_j", (cost["receive_j"] - cost["fetch_j"]) * down),
            (cost["compute_s"] * behind, "compute_j", cost["compute_j"] * behind),
        )
        handing = cost["adapters"] - cost["fetch_s"], "adapter_j", cost["adapter_j"]
        return (*steps, handing) if step + 1 == len(self.turns) else steps


def spent_since(cycles: Sequence[StepCycle], now: float) -> Spent:
    """Return what cycles have spent up to ``now`` s on the clock beyond what is charged already, and charge it."""
    found: dict[str, list[float]] = {name: [] for name in (*KINDS, "idle_j", "server_j")}
    for cycle in cycles:
        after = cycle.spent(now)
        for name, values in found.items():
            values.append(after[name] - cycle.paid.get(name, 0.0))
        cycle.paid = after
    return Spent(**{name: np.array(values) for name, values in found.items()})


def step_shares(stages: Stages, place: int, count: int) -> tuple[tuple[float, float, float, float], ...]:
    """Return ``StepCycle.shares`` of the device at ``place``, which has ``count`` steps.

    Args:
        stages: of its fleet's round, two for each step or run of equal steps.
        place: its column.
        count: H.
    """
    times = stages.count[::2].astype(int)
    ways = (
        stages.compute[::2, place],
        stages.up[::2, place],
        stages.down[1::2, place],
        stages.compute[1::2, place],
    )
    return tuple(zip(*(np.repeat(way, times).tolist() for way in ways), strict=True))[:count]
