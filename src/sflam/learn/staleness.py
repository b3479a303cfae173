"""Buffered rounds (FedBuff): an update is a difference to the version that its device downloaded, and counts less the
more versions there were since.

    w_(v+1) = w_v + sum_i (n_i / n) s(tau_i) (x_i - w_(v - tau_i)),   s(tau) = 1 / sqrt(1 + tau)

M updates of a buffer, x_i what device i trained in both halves from version v - tau_i, n_i its weight in the average,
n of all M. Without staleness that is the average of a synchronous round. Source: Nguyen et al., "Federated learning
with buffered asynchronous aggregation", AISTATS 2022, arXiv 2106.06639 (K there is M here, and all n_i are equal).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sflam.learn.averaging import Averaged, Averaging
from sflam.model.adapters import State

BUFFERED = "buffered"
"""``learn.sync`` of such rounds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Update:
    """What one device sent once.

    Attributes:
        device: who trained it.
        staleness: tau, versions since the one that it downloaded.
        rows: that it trained on.
        begun: the version that it downloaded, by name.
        trained: what came of it in both halves, by name; a part of the names of ``begun``.
    """

    device: int
    staleness: int
    rows: int
    begun: State
    trained: State

    def moved(self, now: Mapping[str, object]) -> State:
        """Return ``now`` moved by the difference, weighted by its staleness; what it trained, where it is not stale."""
        if not self.staleness:
            return self.trained
        weight, found = weight_of(self.staleness), {}
        for name, end in self.trained.items():
            current = now[name]
            assert isinstance(current, type(end))
            found[name] = (current.double() + weight * (end.double() - self.begun[name].double())).to(end)
        return found


def weight_of(staleness: int) -> float:
    """Return s(tau)."""
    return 1.0 / math.sqrt(1.0 + staleness)


def too_stale(bound: int, staleness: int) -> bool:
    """Whether an update is thrown away: it is further behind than ``learn.staleness``, where that is not 0."""
    return 0 < bound < staleness


def aggregated(
    averaging: Averaging, now: State, updates: Sequence[Update], held: Mapping[int, int]
) -> Averaged:
    """Return the next version.

    Args:
        averaging: of the run.
        now: the version that there is.
        updates: of the buffer, in the order in which they came; a device may have several.
        held: device -> n_k.
    """
    return averaging(
        now,
        {index: update.moved(now) for index, update in enumerate(updates)},
        {index: update.rows for index, update in enumerate(updates)},
        {index: held[update.device] for index, update in enumerate(updates)},
    )
