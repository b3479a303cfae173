"""Which cuts fit which device: the peak of a training step against what the device has (1.10)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sflam.network.network import Floats, Network
from sflam.workload import Workload


def needed(network: Network, workload: Workload, cut: ArrayLike) -> Floats:
    """Return the bytes each device needs at its cut; [K]."""
    cuts = np.broadcast_to(np.asarray(cut, np.int64), (len(network),))
    peak: Floats = np.asarray(workload.device_memory)[cuts]
    return peak


def fits(network: Network, workload: Workload, cut: ArrayLike) -> NDArray[np.bool_]:
    """Return whether each device holds its cut; [K]."""
    return needed(network, workload, cut) <= network.memory


def deepest(network: Network, workload: Workload) -> NDArray[np.int64]:
    """Return the deepest cut each device holds, -1 where not even the embedding fits; [K]."""
    room = np.asarray(workload.device_memory)[:, None] <= network.memory[None, :]
    # Memory grows with the cut, so the cuts that fit are the first ones.
    deepest_cut: NDArray[np.int64] = room.sum(axis=0) - 1
    return deepest_cut
