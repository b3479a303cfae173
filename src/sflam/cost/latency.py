"""Time of a server for the mini-batches of its devices, one after another. M servers, K devices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from sflam.network.network import Floats, Network
from sflam.workload import Workload


def server_turn(
    network: Network,
    workload: Workload,
    *,
    cut: ArrayLike,
    server: ArrayLike = 0,
    steps: ArrayLike = 1,
    own: Sequence[Workload] = (),
) -> Floats:
    """Return the s each server needs for ``steps`` mini-batches of each of its devices, at its full clock; [M].

    With ``own`` a mini-batch costs each device, [K], what its own workload says.
    """
    cuts, home = (np.broadcast_to(np.asarray(values, np.int64), (len(network),)) for values in (cut, server))
    work = np.add(workload.server_forward, workload.server_backward)[cuts]
    if own:
        each = zip(own, cuts.tolist(), strict=True)
        work = np.array([one.server_forward[at] + one.server_backward[at] for one, at in each])
    work = work * np.asarray(steps, float)
    flops = np.bincount(home, weights=work, minlength=len(network.server_clock))
    turn: Floats = flops / (network.server_clock * network.server_flops_per_cycle)
    return turn
