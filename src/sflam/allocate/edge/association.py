"""Which server each device trains at, where nothing but measured seconds is known: the shortest predicted round.

N devices, M servers. A device waits at every step for what its server computes for all of its devices, so

    seconds of server m  =  sum of share[n, m]  +  max of (own[n] + way[n, m])    over its devices n
    seconds of a round   =  the largest of these

With one device per unit of work this is scheduling on unrelated machines, which is NP-hard (Lenstra, Shmoys, Tardos
1990). :func:`shortest` improves the association in force by single moves and swaps, and then searches all others, depth
first, below the best found: that is exact as long as it ends within its limit of nodes, and never worse than staying.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
NODES = 20_000
"""Partial associations that are looked at: all of 6 devices among 3 servers are 1092, and take a few milliseconds."""
DEEPEST = 64
"""Devices beyond which that is left to moves and swaps."""
SAME = 1e-9
"""Relative difference below which two rounds take equally long."""


@dataclass(frozen=True, eq=False)
class MeasuredServers:
    """What a round takes of every device at every server, in seconds.

    Attributes:
        own: [N] at any server: computing on the device, its adapters.
        way: [N, M] bodies of its steps on both ways.
        share: [N, M] computing at the server.
        may: [N, M] whether a device may be at a server.
    """

    own: Floats
    way: Floats
    share: Floats
    may: NDArray[np.bool_]

    def seconds(self, server_of: Sequence[int]) -> Floats:
        """Return [M] the seconds of each server; 0 of one without devices."""
        devices, servers = np.arange(len(server_of)), np.asarray(server_of, np.int64)
        each, longest = self.own + self.way[devices, servers], np.zeros(self.way.shape[1])
        np.maximum.at(longest, servers, each)
        loads = np.bincount(servers, self.share[devices, servers], minlength=len(longest))
        return loads + longest

    def round_s(self, server_of: Sequence[int]) -> float:
        """Return the seconds of a round."""
        return float(self.seconds(server_of).max(initial=0.0))


@dataclass(frozen=True)
class Associated:
    """An association.

    Attributes:
        server_of: of each device.
        seconds: of its round.
        exact: whether no other is shorter, and none as short moves fewer devices.
    """

    server_of: tuple[int, ...]
    seconds: float
    exact: bool


def shortest(problem: MeasuredServers, start: Sequence[int], nodes: int = NODES) -> Associated:
    """Return the association of the shortest round, of those the one that moves fewest devices from ``start``.

    Args:
        problem: the seconds.
        start: the server of each device now; one that it may not be at is left as soon as anything is shorter.
        nodes: partial associations that are looked at, and moves and swaps before.
    """
    best = _less_moved(problem, tuple(start), _improved(problem, tuple(start), nodes))
    search = _Search(problem, tuple(start), best, nodes)
    exact = len(start) <= DEEPEST and search.whole()
    return Associated(search.best, problem.round_s(search.best), exact)


def _improved(problem: MeasuredServers, start: tuple[int, ...], tries: int) -> tuple[int, ...]:
    """Return what moves, and where none helps swaps, of devices of the longest server make of an association.

    The seconds of all servers, longest first, are compared: the longest may be of two servers at once.
    """
    now, key = start, _key(problem, start)
    while True:
        for kind in (_moved, _swapped):
            others = list(itertools.islice(kind(problem, now), max(tries, 0)))
            tries -= len(others)
            found = min(((_key(problem, other), other) for other in others), default=(key, now))
            if found[0] < key:
                key, now = found
                break
        else:
            return now


def _moved(problem: MeasuredServers, now: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the associations with one device of the longest server elsewhere."""
    longest = int(problem.seconds(now).argmax())
    for device in (one for one, server in enumerate(now) if server == longest):
        for server in np.flatnonzero(problem.may[device]).tolist():
            if server != longest:
                yield (*now[:device], server, *now[device + 1 :])


def _swapped(problem: MeasuredServers, now: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the associations with one device of the longest server in the place of another's."""
    longest = int(problem.seconds(now).argmax())
    for moved in _moved(problem, now):
        device = next(one for one, server in enumerate(moved) if server != now[one])
        for other, server in enumerate(now):
            if server == moved[device] and problem.may[other, longest]:
                yield (*moved[:other], longest, *moved[other + 1 :])


def _less_moved(problem: MeasuredServers, start: tuple[int, ...], best: tuple[int, ...]) -> tuple[int, ...]:
    """Return an association as short as the best, in which devices whose move saves nothing stay."""
    least = problem.round_s(best) * (1 + SAME)
    for device, server in enumerate(start):
        back = (*best[:device], server, *best[device + 1 :])
        if problem.may[device, server] and problem.round_s(back) <= least:
            best = back
    return best


def _key(problem: MeasuredServers, server_of: Sequence[int]) -> tuple[float, ...]:
    return tuple(sorted(problem.seconds(server_of).tolist(), reverse=True))


class _Search:
    """The associations below the best found, depth first: the devices that take longest come first."""

    def __init__(
        self, problem: MeasuredServers, start: tuple[int, ...], best: tuple[int, ...], nodes: int
    ) -> None:
        self.problem, self.start, self.left = problem, start, nodes
        self.each = problem.own[:, None] + problem.way
        self.order = np.argsort(-(self.each + problem.share).min(axis=1), kind="stable").tolist()
        self.found, self.best = list(best), best
        self.least, self.moves = problem.round_s(best), self._moves(best)

    def whole(self) -> bool:
        """Search all; return whether that ended within the limit."""
        servers = self.problem.way.shape[1]
        self._place(0, np.zeros(servers), np.zeros(servers), 0)
        return self.left > 0

    def _moves(self, server_of: Sequence[int]) -> int:
        return sum(one != other for one, other in zip(server_of, self.start, strict=True))

    def _place(self, depth: int, loads: Floats, longest: Floats, moves: int) -> None:
        """Place the devices from ``depth`` on, in every way that can still be better than the best."""
        if self.left <= 0:
            return
        self.left -= 1
        seconds = float((loads + longest).max(initial=0.0))
        rest = self.order[depth:]
        if rest:  # each of the others adds to the server where it is cheapest
            alone = np.maximum(self.each[rest], longest) + loads + self.problem.share[rest]
            seconds = max(seconds, float(np.where(self.problem.may[rest], alone, np.inf).min(axis=1).max()))
        if not self._better(seconds, moves):
            return
        if not rest:
            self.best, self.least, self.moves = tuple(self.found), seconds, moves
            return
        device = rest[0]
        servers = np.flatnonzero(self.problem.may[device])
        after = np.maximum(self.each[device], longest) + loads + self.problem.share[device]
        for server in sorted(servers.tolist(), key=lambda server: (after[server], server)):
            more, most = loads.copy(), longest.copy()
            more[server] += self.problem.share[device, server]
            most[server] = max(most[server], self.each[device, server])
            self.found[device] = server
            self._place(depth + 1, more, most, moves + (server != self.start[device]))

    def _better(self, seconds: float, moves: int) -> bool:
        """Whether an association that takes at least so long, with at least so many moves, may be better."""
        if seconds < self.least * (1 - SAME):
            return True
        return seconds <= self.least * (1 + SAME) and moves < self.moves
