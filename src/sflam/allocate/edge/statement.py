"""From what fine-tuning costs users to problem B (3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sflam.allocate.edge.books import EdgeBooks
from sflam.allocate.edge.problem import EdgeProblem, TunedChoices
from sflam.cost.traffic import Traffic, steps_up
from sflam.errors import AllocationError
from sflam.network.network import Floats, Network
from sflam.workload import Workload


def layer_flops(workload: Workload, *, full_training: bool = False) -> float:
    """Return the FLOP of one inner layer's training step on a mini-batch: (1.1) + (1.2) + (1.3).

    Args:
        workload: of equal layers.
        full_training: three forwards instead, as printed in 2409.20247; without adapters that is (1.1) + (1.4).
    """
    forward = (workload.device_forward[-1] - workload.device_forward[0]) / workload.blocks
    if full_training:
        return 3 * forward
    none, first, *_, last = workload.device_backward[:2] + workload.device_backward[-1:]
    inner = (last - first) / (workload.blocks - 1) if workload.blocks > 1 else first - none
    return forward + inner


def edge_problem(
    network: Network,
    workloads: Sequence[Workload],
    samples: ArrayLike,
    *,
    bits: int = 8,
    steps: ArrayLike = 1.0,
    full_training: bool = False,
    at_tuned: Sequence[Sequence[Workload]] = (),
    least_tuned: int = 1,
    books_at: tuple[EdgeBooks, ...] = (),
    traffic: Traffic | None = None,
    **attributes: Any,
) -> EdgeProblem:
    """Return the problem of users who fine-tune with these workloads, one per user, all of one depth.

    Args:
        network: users and servers.
        workloads: [N].
        samples: [N], or one number for all.
        bits: per activation value.
        steps: [N] mini-batches of a round, or one number for all.
        full_training: all weights of a layer are trained; see ``layer_flops``.
        at_tuned: [Y] the same with 1, 2, ... Y first layers tuned, where plans choose how many.
        least_tuned: fewest of them.
        books_at: [Y] the books of each.
        traffic: what the mini-batches hold, where whole bodies count; None counts codes and side information.
        attributes: further attributes of ``EdgeProblem``.
    """
    depths = sorted({workload.blocks for workload in workloads})
    if len(workloads) != len(network) or len(depths) != 1:
        raise AllocationError(
            f"{len(workloads)} workloads of {depths} blocks for {len(network)} users; give one each, all of one depth"
        )
    count = np.asarray(steps, float)
    if at_tuned:
        attributes["choices"] = TunedChoices(
            layer_flops=np.array([[layer_flops(one) for one in each] for each in at_tuned]) * count,
            memory=np.array([_memory(each) for each in at_tuned]),
            least=least_tuned,
            books=books_at,
        )
    sent = np.array([workload.up_bits(bits) for workload in workloads]) * count
    if traffic is not None:
        sent = steps_up(traffic, workloads, bits)
    flops = np.array([layer_flops(workload, full_training=full_training) for workload in workloads])
    return EdgeProblem(
        network=network,
        layers=workloads[0].blocks,
        layer_flops=flops * count,
        payload=sent * np.log(2),
        samples=np.broadcast_to(np.asarray(samples, float), (len(network),)),
        memory=_memory(workloads),
        bits=bits,
        **attributes,
    )


def _memory(workloads: Sequence[Workload]) -> Floats:
    """Return [N, Y + 1] the bytes that users need at every split, the last of which is without a server."""
    return np.array([(*workload.device_memory[:-1], workload.whole_memory) for workload in workloads])
