"""What the mini-batches of a round will send, from the samples that are drawn for it, before any of them is trained on.

K devices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
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
        tokens: of an image.
        round: its number.
        known: whether the server already keeps all that it can keep, as at best.
    """

    def __init__(self, fleet: LocalFleet, tokens: int, round: int, *, known: bool = False) -> None:
        self._draw = partial(fleet.drawn, round)
        self._fleet, self._tokens, self._all_known = fleet, tokens, known
        self._known: dict[tuple[int, ...], Traffic] = {}

    def of(self, devices: Sequence[int]) -> Traffic:
        """Return the traffic of devices that take part together, in their order."""
        who = tuple(devices)
        if who not in self._known:
            fleet, drawn = self._fleet, self._draw(sorted(who))
            traffic = drawn_traffic(
                {device: drawn[device] for device in who},
                fleet.exchange,
                lengths=fleet.examples.dataset.lengths,
                tokens=self._tokens,
                labels=fleet.labels == "server",
            )
            if self._all_known and isinstance(fleet.exchange, CachedExchange):
                traffic = replace(traffic, fresh=np.zeros(len(who)))
            self._known[who] = traffic
        return self._known[who]


def drawn_traffic(
    batches: Mapping[int, Sequence[NDArray[Any]]],
    exchange: Exchange,
    *,
    lengths: NDArray[Any] | None,
    tokens: int,
    labels: bool,
) -> Traffic:
    """Return the traffic of devices, in the order of ``batches``.

    Args:
        batches: device -> the samples of each of its mini-batches; some may have none.
        exchange: knows what the server keeps.
        lengths: [N] valid tokens of every sample of the dataset; None where all have ``tokens``.
        tokens: of a sample.
        labels: whether they go up.
    """

    def long(samples: NDArray[Any]) -> NDArray[Any]:
        return np.full(len(samples), tokens) if lengths is None else lengths[samples]

    found = []
    for device, own in batches.items():
        sizes = [long(samples) for samples in own if len(samples)]
        rows, valid = sum(map(len, sizes)), int(sum(size.sum() for size in sizes))
        ragged = sum(len(size) for size in sizes if (size != size[0]).any())  # where lengths travel
        fresh, named = valid, rows * exchange.numbered
        if isinstance(exchange, CachedExchange):
            known = exchange.sent.get(device, set())
            new = sorted({sample for samples in own for sample in samples.tolist()} - known)
            fresh = int(long(np.array(new, np.int64)).sum())
        numbers = labels * (valid if exchange.per_token else rows) + ragged + named
        found.append((len(sizes), rows, valid, fresh, numbers))
    columns = np.array(found, float).reshape(-1, 5).T
    return Traffic(
        bodies=columns[0], rows=columns[1], tokens=columns[2], fresh=columns[3], numbers=columns[4]
    )
