"""What a round costs in joules, term by term. K devices, J each; one mini-batch unless said otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sflam.cost.latency import Stages
from sflam.network.network import Floats, Network


@dataclass(frozen=True, kw_only=True, eq=False)
class Energy:
    """Energy of one mini-batch, [K] each, J.

    Attributes:
        transmit: sending activations, p t (2.2).
        compute: kappa f^2 C of forward and backward (1.12).
        static: drawn while computing whatever the clock, P0 tau.
        server: the server's kappa f^2 C for this device's mini-batch.
    """

    transmit: Floats
    compute: Floats
    static: Floats
    server: Floats

    @property
    def device(self) -> Floats:
        """What the device's battery pays."""
        return self.transmit + self.compute + self.static


def energy(
    network: Network,
    times: Stages,
    *,
    power: ArrayLike,
    clock: ArrayLike,
    server: ArrayLike = 0,
    server_clock: ArrayLike | None = None,
) -> Energy:
    """Return every term, from powers and times: kappa f^3 tau is kappa f^2 C.

    Args:
        network: who is there.
        times: the stages of the same choices.
        power: transmit power, W.
        clock: Hz.
        server: index of each device's server.
        server_clock: Hz each device has of its server; None for the whole clock.
    """
    every = len(network)
    home = np.broadcast_to(np.asarray(server, np.int64), (every,))
    hertz = np.broadcast_to(np.asarray(clock, float), (every,))
    share = network.server_clock[home] if server_clock is None else np.broadcast_to(server_clock, (every,))
    return Energy(
        transmit=np.asarray(power) * times.up,
        compute=network.kappa * hertz**3 * times.compute,
        static=network.static_power * times.compute,
        server=network.server_kappa[home] * np.asarray(share, float) ** 3 * times.server,
    )
