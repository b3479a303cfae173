"""Bits for every device and whole subchannels together: the published planner's joint choice, searched and bounded.

    min over q and counts   (1 + sum_k chi_k v(q_k)) J*(q, counts)

At given bits counts are exact (2.5). Where all choices of bits are few, every one is solved; otherwise the search
begins at the bits that a continuous band would have, and at the best common width, and takes a bit more or a bit less
at one device, or at all, while the total falls. A continuous band can be shared out as subchannels are: J* over it is a
bound at the same bits, which leaves out what cannot be better, and (2.18) one over all bits.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from sflam.allocate.cell import bits as continuous
from sflam.allocate.cell import subchannels
from sflam.allocate.cell.bits import Bits, Search
from sflam.allocate.cell.bits_moves import CHANGES
from sflam.allocate.cell.problem import Problem
from sflam.allocate.limits import Impossible
from sflam.allocate.referee import Found, planned, score

FEW = 200  # choices of bits up to which every one is solved
POLISHED = 60  # devices up to which single changes are tried


@planned("subchannel-bits")
def solve(problem: Problem, count: int, *, tolerance: float = subchannels.TOLERANCE, few: int = FEW) -> Found:
    """Return the best plan found over bits and ``count`` equal subchannels.

    Args:
        problem: its ``bits`` are not used.
        count: subchannels of the band, at least one per device.
        tolerance: relative gap of the counts at given bits.
        few: choices of bits up to which every one is solved: the bound is then that of the counts.

    Raises:
        AllocationError: fewer subchannels than devices.
    """
    joint = _Joint(problem, count, tolerance)
    allowed = [[width for width in problem.widths if width >= least] for least in problem.widest(0)]
    if math.prod(map(len, allowed)) <= few:
        for choice in itertools.product(*allowed):
            joint.look(np.array(choice, np.int64))
        return joint.found(min(joint.bounds, default=-np.inf))
    relaxed = continuous.solve(problem)
    if len(relaxed.devices):
        joint.look(relaxed.devices.bits.astype(np.int64))
    for width in problem.widths:
        joint.attempt(problem.widest(width))
    joint.polish()
    return joint.found(relaxed.lower_bound)


class _Joint:
    """The best of the choices of bits that were looked at."""

    def __init__(self, problem: Problem, count: int, tolerance: float) -> None:
        self.problem, self.count, self.tolerance = problem, count, tolerance
        self.search = Search(problem.change(bits=problem.widest(0)))
        self.best, self.bits = np.inf, problem.widest(0)
        self.plan: Found | None = None
        self.bounds: list[float] = []
        self.history: list[float] = []
        self._reason: Impossible | None = None
        self._seen: set[bytes] = set()

    def look(self, bits: Bits) -> bool:
        """Solve the counts at these bits; return whether they are better than all before."""
        self._seen.add(bits.tobytes())
        try:
            found = subchannels.counted(self.problem.change(bits=bits), self.count, self.tolerance)
        except Impossible as reason:
            self._reason = self._reason or reason
            return False
        self.bounds.append(found.lower_bound)
        total = score(found.problem, found.shares).objective
        if not total < self.best * (1 - 1e-12):
            return False
        self.best, self.bits, self.plan = total, bits, found
        self.history.append(total)
        return True

    def attempt(self, bits: Bits) -> bool:
        """Do so only where a continuous band would be better, too."""
        if bits.tobytes() in self._seen or self.search.solve(bits)[0] >= self.best:
            return False
        return self.look(bits)

    def polish(self) -> None:
        """Take a bit more or less at one device, or at all, until nothing improves."""
        widths, floor = np.array(self.problem.widths), self.problem.widest(0)
        every = np.arange(len(self.problem))
        masks = [every == k for k in every] if len(every) <= POLISHED else []
        improved = True
        while improved:
            improved = False
            for mask in (*masks, every >= 0):
                for change in CHANGES:
                    place = np.searchsorted(widths, self.bits) + change * mask
                    moved = np.maximum(widths[np.clip(place, 0, len(widths) - 1)], floor)
                    improved |= self.attempt(moved)

    def found(self, bound: float) -> Found:
        """Return the best; raises Impossible where no bits hold the limits."""
        if self.plan is None:
            raise self._reason or Impossible("no width holds the limits over these subchannels")
        return Found(
            problem=self.plan.problem,
            shares=self.plan.shares,
            lower_bound=min(bound, self.best),
            history=tuple(self.history),
        )
