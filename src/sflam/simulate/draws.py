"""What the mini-batches of a round will send, from the samples that are drawn for it, before any of them is trained on.

K devices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.cost.traffic import Traffic
from sflam.learn.activation_cache import CachedExchange
from sflam.learn.exchange import Exchange
from sflam.learn.split_fleet import LocalFleet


class Draws:
    """The traffic of the rounds' devices; looked up before a round, and remembered when it has changed what is kept.

    Args:
        fleet: whose mini-batches are drawn.
        tokens: of an image that cross the cut.
        round: its number.
        known: whether the server already keeps all that it can keep, as at best.
    """

    def __init__(self, fleet: LocalFleet, tokens: int, round: int, *, known: bool = False) -> None:
        self._draw = partial(fleet.drawn, round)
        self._fleet, self._tokens, self._all_known = fleet, tokens, known
        self._known: dict[tuple[int, ...], list[Traffic]] = {}

    def of(self, devices: Sequence[int]) -> Traffic:
        """Return the traffic of devices that take part together, in their order."""
        return together(self.each(devices))

    def each(self, devices: Sequence[int]) -> list[Traffic]:
        """Return the traffic of every step of theirs."""
        who = tuple(devices)
        if who not in self._known:
            fleet, drawn = self._fleet, self._draw(sorted(who))
            steps = drawn_steps(
                {device: drawn[device] for device in who},
                fleet.exchange,
                lengths=fleet.examples.dataset.lengths,
                tokens=self._tokens,
                labels=fleet.labels == "server",
            )
            if self._all_known and isinstance(fleet.exchange, CachedExchange):
                steps = [replace(step, fresh=np.zeros(len(who))) for step in steps]
            self._known[who] = steps
        return self._known[who]


def together(steps: Sequence[Traffic]) -> Traffic:
    """Return the traffic of several steps as one."""
    return Traffic(**{each.name: sum(getattr(step, each.name) for step in steps) for each in fields(Traffic)})


def drawn_steps(
    batches: Mapping[int, Sequence[NDArray[Any]]],
    exchange: Exchange,
    *,
    lengths: NDArray[Any] | None,
    tokens: int,
    labels: bool,
) -> list[Traffic]:
    """Return the traffic of devices in every step, in the order of ``batches``.

    Args:
        batches: device -> the samples of each of its mini-batches; some may have none.
        exchange: knows what the server keeps.
        lengths: [N] valid tokens of every sample of the dataset; None where all have ``tokens``.
        tokens: of an image that cross the cut.
        labels: whether they go up.
    """
    number = max(map(len, batches.values()), default=0)
    kept = exchange.sent if isinstance(exchange, CachedExchange) else {}
    drop = exchange.guard.drop if exchange.guard else None
    known = {device: set(kept.get(device, ())) for device in batches}

    def of_step(device: int, samples: NDArray[Any]) -> tuple[float, ...]:
        rows = len(samples)
        if not rows:
            return (0.0,) * 5
        sizes = np.full(rows, tokens) if lengths is None else lengths[samples]
        if drop is not None and lengths is not None:  # an image's ``tokens`` are those sent
            sizes = drop.counts(sizes)
        valid = fresh = int(sizes.sum())
        ragged = rows if (sizes != sizes[0]).any() else 0  # where lengths travel
        if isinstance(exchange, CachedExchange):
            new = sorted(set(samples.tolist()) - known[device])
            known[device].update(new)
            fresh = tokens * len(new) if lengths is None else int(lengths[np.array(new, np.int64)].sum())
        numbers = labels * (valid if exchange.per_token else rows) + ragged + rows * exchange.numbered
        return 1.0, float(rows), float(valid), float(fresh), float(numbers)

    found = []
    for step in range(max(number, 1)):
        own = [
            of_step(d, each[step] if step < len(each) else np.empty(0, np.int64))
            for d, each in batches.items()
        ]
        bodies, rows, valid, fresh, numbers = np.array(own, float).reshape(-1, 5).T
        found.append(Traffic(bodies=bodies, rows=rows, tokens=valid, fresh=fresh, numbers=numbers))
    return found
