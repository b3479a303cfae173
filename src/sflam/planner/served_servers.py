"""Which trunk server each device of a served run is to be at: planned from what its rounds measured.

Nothing is known of radios or clocks here, only seconds: of a device, its own computing, its adapters, and both ways to
the servers that it has been at; of a server, what its computing took for each sample. A server that a device has not
been at yet is taken to be as far away as its present one, and one that had no devices yet to be as fast as the others'
median: a move to it is a try, and once it is measured the next plan knows better.
"""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from sflam.allocate.edge.association import MeasuredServers, shortest
from sflam.learn.settings.association import AssociationSettings
from sflam.records.history import RoundRecord

LAST = 3
"""Rounds whose median stands for what is measured, so that one odd round moves no device."""


@dataclass(frozen=True)
class PlannedServers:
    """A plan that moves devices.

    Attributes:
        server_of: device -> its server, of those that move.
        seconds: predicted of a round with it.
        stays_s: predicted of a round without it.
    """

    server_of: dict[int, int]
    seconds: float
    stays_s: float

    def __str__(self) -> str:
        return f"a round of {self.seconds:.3g} s instead of {self.stays_s:.3g} s"


class ServedServers:
    """What rounds measured, and the plans made of it.

    Args:
        settings: ``[association]``.
        servers: that devices may be at.
    """

    def __init__(self, settings: AssociationSettings, servers: Collection[int]) -> None:
        self.settings, self.servers = settings, tuple(sorted(servers))
        self._own: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=LAST))
        self._way: dict[tuple[int, int], deque[float]] = defaultdict(lambda: deque(maxlen=LAST))
        self._sample: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=LAST))
        self._samples: dict[int, int] = {}

    def note(self, record: RoundRecord) -> None:
        """Note what a round took; one in which a trunk server had the devices of another shows neither's speed."""
        found = record.measured
        if found is None or not found.server_busy:
            return
        rows: dict[int, int] = defaultdict(int)
        for place, device in enumerate(record.participants):
            server = found.servers[place]
            rows[server] += record.device_samples[place]
            self._samples[device] = record.device_samples[place]
            self._own[device].append(found.compute_s[place] + found.adapter_s[place])
            self._way[device, server].append(found.up_s[place] + found.down_s[place])
        for server, count in rows.items():
            if count:
                self._sample[server].append(max(0.0, found.server_busy[server] / count))

    def plan(self, now: Sequence[int], fixed: Collection[int] = ()) -> PlannedServers | None:
        """Return what moves devices, where the round gets shorter by the share that it must; else None.

        Args:
            now: the server of each device.
            fixed: devices that stay where they are, as do all that no round has measured.
        """
        problem = self.problem(now, fixed)
        if problem is None:
            return None
        found, stays = shortest(problem, now), problem.round_s(now)
        if found.seconds > stays * (1 - self.settings.saves):
            return None
        pairs = enumerate(zip(now, found.server_of, strict=True))
        return PlannedServers({device: to for device, (at, to) in pairs if at != to}, found.seconds, stays)

    def problem(self, now: Sequence[int], fixed: Collection[int] = ()) -> MeasuredServers | None:
        """Return what a round takes of each device at each server, as far as is known; None before any is measured."""
        if not self._sample:
            return None
        count, servers = len(now), max((*self.servers, *now)) + 1
        each = {server: statistics.median(seconds) for server, seconds in self._sample.items()}
        usual = statistics.median(each.values())
        own, way, share = np.zeros(count), np.zeros((count, servers)), np.zeros((count, servers))
        may = np.zeros((count, servers), np.bool_)
        for device, at in enumerate(now):
            may[device, at] = True
            if device not in self._samples:
                continue
            if device not in fixed:
                may[device, list(self.servers)] = True
            own[device] = statistics.median(self._own[device])
            known = {server: statistics.median(self._way[device, server]) for server in self._been(device)}
            # After an order it may be at a server where no round was measured yet.
            here = known.get(at, statistics.median(known.values()))
            for server in range(servers):
                way[device, server] = known.get(server, here)
                share[device, server] = self._samples[device] * each.get(server, usual)
        return MeasuredServers(own, way, share, may)

    def _been(self, device: int) -> list[int]:
        return [server for one, server in self._way if one == device]
