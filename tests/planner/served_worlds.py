"""Devices and trunk servers whose seconds are known, and the records that their rounds leave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sflam.allocate.edge.association import MeasuredServers
from sflam.records.history import RoundRecord
from sflam.records.served_round import ServedRound


@dataclass(frozen=True, eq=False)
class World:
    """Seconds: ``own`` [N] on devices, ``way`` [N, M] of both ways, ``sample`` [M] of a server; ``rows`` [N]."""

    own: np.ndarray
    way: np.ndarray
    sample: np.ndarray
    rows: np.ndarray

    def seconds(self, server_of):
        """Return the seconds of a round."""
        every = np.ones(self.way.shape, bool)
        share = self.rows[:, None] * self.sample
        return MeasuredServers(self.own, self.way, share, every).round_s(server_of)

    def record(self, round, server_of, *, without=(), away=False, noise=None):
        """Return the record of a round, in which ``away`` lets a trunk server have another's devices."""
        who = [device for device in range(len(self.own)) if device not in without]
        servers = [server_of[device] for device in who]
        factor = np.ones(len(self.own)) if noise is None else noise.uniform(0.96, 1.04, len(self.own))
        busy = [0.0] * (max(servers) + 1)
        for device, server in zip(who, servers, strict=True):
            busy[server] += float(self.rows[device] * self.sample[server] * factor[device])
        zero = (0,) * len(who)
        none = (0.0,) * len(who)
        return RoundRecord(
            round=round, loss=1.0, participants=tuple(who), device_samples=tuple(int(self.rows[d]) for d in who),
            measured=ServedRound(
                seconds=1.0, openings=1, server_s=sum(busy), finish=none, upload_s=none, away_s=none, bytes_up=zero,
                bytes_down=zero, payload_up=zero, payload_down=zero, cuts=zero, bits_up=zero, bits_down=zero,
                compute_s=tuple(float(self.own[d] * factor[d]) for d in who), adapter_s=none, wait_s=none,
                up_s=tuple(float(self.way[d, s] * factor[d]) / 2 for d, s in zip(who, servers, strict=True)),
                down_s=tuple(float(self.way[d, s] * factor[d]) / 2 for d, s in zip(who, servers, strict=True)),
                servers=tuple(servers), server_busy=() if away else tuple(busy),
            ),
        )  # fmt: skip


def drawn(seed, devices, servers):
    """Return a world of devices and servers of every kind."""
    rng = np.random.default_rng(seed)
    return World(
        rng.uniform(0.1, 2.0, devices),
        rng.uniform(0.0, 2.0, (devices, servers)),
        rng.uniform(0.001, 0.05, servers),
        rng.integers(5, 60, devices),
    )
