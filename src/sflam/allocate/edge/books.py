"""What a user's round takes beside equal layers and activations, where plans for several servers count it.

N users, M servers, Y layers; alpha of them on the user. In (3.1) as published a layer costs the same everywhere, and
nothing but activations crosses. With these books a half costs what it does (embedding, head, a first layer that passes
no gradient on), gradients and adapters come down at a rate of their own, and adapters go up after the last step: user
after user, each over its server's whole band at full power; a user that keeps all layers hands them to the server that
hears it best. All that is added hangs on the user, its server and its split alone, so that (3.7) stays a bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from sflam.cost.traffic import HEADER_BITS, Traffic, adapters_down, adapters_up, steps_down
from sflam.network.network import Floats
from sflam.sizes import adapter_payload_bits
from sflam.workload import Workload


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeBooks:
    """A round's work and traffic at every split, [N, Y + 1] each; the last is without a server.

    Attributes:
        own_flops: FLOP on the user: embedding and layers, and the head where it keeps them all.
        server_flops: FLOP of the rest; 0 at Y.
        down_bits: bits of the answers to the steps; 0 at Y.
        adapters_up: bits in which what was trained goes up.
        adapters_down: bits of the adapters that come down before the steps.
        down_rate: [N] bit/s of the way down; inf where it takes no time.
        aggregation_s: s that servers take to average their adapters, once a round.
    """

    own_flops: Floats
    server_flops: Floats
    down_bits: Floats
    adapters_up: Floats
    adapters_down: Floats
    down_rate: Floats
    aggregation_s: float = 0.0


def edge_books(
    workloads: Sequence[Workload],
    traffic: Traffic,
    steps: Floats,
    *,
    bits_down: int,
    down_rate: Floats,
    whole_values: int | None = None,
    backhaul: float = np.inf,
) -> EdgeBooks:
    """Return the books of users with these workloads.

    Args:
        workloads: [N], all of one depth.
        traffic: what the mini-batches of their rounds hold.
        steps: [N] mini-batches of a round, whole or fractions.
        bits_down: bits of a gradient value.
        down_rate: [N] bit/s.
        whole_values: numbers that a user trains that keeps all layers; None: those of the adapters of all layers.
        backhaul: bit/s between servers, each way at once; inf where averaging takes no time.
    """
    layers = workloads[0].blocks
    splits = range(layers)

    def per_split(name: str) -> Floats:
        return np.array([getattr(each, name) for each in workloads], float) * steps[:, None]

    own = per_split("device_forward") + per_split("device_backward")
    served = per_split("server_forward") + per_split("server_backward")
    own[:, layers] += served[:, layers]
    served[:, layers] = 0.0
    values = np.array([whole_values or each.adapter_values[-1] for each in workloads])
    bodies = np.array([each.adapter_bodies for each in workloads])
    width = np.array(
        [adapter_payload_bits(n, each.adapter_width) for n, each in zip(values, workloads, strict=True)]
    )
    whole = bodies * (width + HEADER_BITS)
    saved = np.array([each.change_saves(int(n)) for n, each in zip(values, workloads, strict=True)])
    cuts = [[alpha] * len(workloads) for alpha in splits]
    none = np.zeros(len(workloads))
    return EdgeBooks(
        own_flops=own,
        server_flops=served,
        down_bits=np.stack([*(steps_down(traffic, workloads, at, bits_down) for at in cuts), none], axis=1),
        adapters_up=np.stack([*(adapters_up(workloads, at) for at in cuts), whole - saved], axis=1),
        adapters_down=np.stack([*(adapters_down(workloads, at) for at in cuts), whole], axis=1),
        down_rate=np.asarray(down_rate, float),
        aggregation_s=2 * float(width.max()) / backhaul,
    )


def chosen(books: Sequence[EdgeBooks], which: NDArray[np.int64]) -> EdgeBooks:
    """Return the books of users that each take their rows from one of several, by its index [N]."""
    users = np.arange(len(which))
    rows = {
        each.name: np.stack([getattr(one, each.name) for one in books])[which, users]
        for each in fields(EdgeBooks)
        if each.name != "aggregation_s"
    }
    return EdgeBooks(**rows, aggregation_s=max(one.aggregation_s for one in books))
