"""What every cut costs every device, and the server for it: what cuts are chosen by.

K devices, Y cuts, I times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sflam.allocate.cell.airtime import cell_of, kind_of
from sflam.allocate.cell.arrays import Cell, arrays_of
from sflam.allocate.cell.bits import costs_of
from sflam.allocate.cell.cuts import server_clock
from sflam.allocate.cell.problem import Problem
from sflam.allocate.limits import Impossible
from sflam.network.network import Floats

Cuts = NDArray[np.int64]
Place = Callable[[Problem], Problem]


@dataclass(frozen=True, eq=False)
class CutOptions:
    """What every cut costs every device.

    Attributes:
        problem: its cut is not used; T0 and J0 are without the server's turn.
        cuts: [Y] cuts to choose from, ascending.
        place: gives a problem at cuts the delays that hang on them.
    """

    problem: Problem
    cuts: Cuts
    place: Place

    @cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """[Y, K] whether a device can hold a cut at all, in memory and by its energy caps."""
        return np.isfinite(self._columns["payload"])

    @cached_property
    def seconds(self) -> Floats:
        """[Y, K] s of the server's turn for a device."""
        network, problem = self.problem.network, self.problem
        flops = np.stack([problem.served_flop(cut) for cut in self.cuts.tolist()])
        rate = float(network.server_flops_per_cycle[problem.server]) * server_clock(problem)
        turns: Floats = flops * problem.each("local_steps") / rate
        return turns

    @cached_property
    def joules(self) -> Floats:
        """[Y, K] J of the server's turn for a device."""
        kappa = float(self.problem.network.server_kappa[self.problem.server])
        return self.seconds * kappa * server_clock(self.problem) ** 3

    @cached_property
    def heard(self) -> Floats:
        """[Y, K] J, weighted, of a device's receiving, which hangs on its cut as what comes down does."""
        network = self.problem.network
        joules = [self.place(self.problem.change(cut=cut)).received_j for cut in self.cuts.tolist()]
        weighted: Floats = np.array(joules) * network.energy_weight
        return weighted

    @cached_property
    def constant(self) -> float:
        """The objective's part that is the same at all cuts."""
        return self.problem.change(receiving=0.0).constant

    @cached_property
    def _columns(self) -> dict[str, Floats]:
        """[Y, K] arrays of the problem's kind of cell; NaN where a device cannot hold a cut."""
        names = arrays_of(kind_of(self.problem.network))
        found = {name: np.full((len(self.cuts), len(self.problem)), np.nan) for name in names}
        least = float(np.where(self._room, self.seconds, np.inf).min(axis=0).sum())
        for row, cut in enumerate(self.cuts.tolist()):
            every = np.flatnonzero(self._room[row])
            for index in [every] if self._cell(cut, every, least) is not None else every[:, None]:
                if (cell := self._cell(cut, index, least)) is not None:
                    for name in names:
                        found[name][row, index] = getattr(cell, name)
        return found

    @cached_property
    def _room(self) -> NDArray[np.bool_]:
        room: NDArray[np.bool_] = self.problem.room.T[self.cuts]
        if not room.any(axis=0).all():
            _ = self.problem.change(
                cut=self.cuts[0]
            ).cell  # raises Impossible with the devices and their need
        return room

    def _cell(self, cut: int, index: Cuts, least: float) -> Cell | None:
        """Return the cell of some devices at one cut, in the shortest turn there is; None where a cap forbids it."""
        if not len(index):
            return None
        part = self.problem.only(index)
        try:
            return self.place(part.change(cut=cut, base_s=self.problem.base_s + least)).cell
        except Impossible:
            return None

    @cached_property
    def alone(self) -> Floats:
        """[Y, K] s in which a device could be done with all the bandwidth there can be; inf where a cut cannot be."""
        columns = self._columns
        with np.errstate(invalid="ignore"):
            every = self._cell_of(columns)
            done = every.busy + every.soonest(every.payload)
        return np.where(self.allowed, done, np.inf)

    @cached_property
    def shortest_turn(self) -> float:
        """s of the server's turns at the cuts at which they are shortest."""
        return float(np.where(self.allowed, self.seconds, np.inf).min(axis=0).sum())

    def common(self) -> list[Cuts]:
        """Return the rows of each common cut; a device that cannot hold it has the deepest below it that it can."""
        found = {}
        for row in range(len(self.cuts)):
            below = self.allowed[: row + 1]
            deepest = row - np.argmax(below[::-1], axis=0)
            rows = np.where(below.any(axis=0), deepest, np.argmax(self.allowed, axis=0))
            found[rows.tobytes()] = rows
        return list(found.values())

    def fastest(self) -> Cuts:
        """Return the rows at which each device could be done first, its turn at the server counted."""
        return np.asarray((self.alone + self.seconds).argmin(axis=0))

    def at(self, rows: Cuts) -> Problem:
        """Return the problem at the cuts in ``rows`` [K], with the server's turn in T0 and J0."""
        every, problem = np.arange(len(rows)), self.problem
        seconds, joules = float(self.seconds[rows, every].sum()), float(self.joules[rows, every].sum())
        here = problem.change(
            cut=self.cuts[rows], base_s=problem.base_s + seconds, base_j=problem.base_j + joules
        )
        return self.place(here)

    def costs(self, times: Floats, price: float) -> tuple[Floats, Floats]:
        """Return D_k(T, mu, y) and -dD_k/dT, [I, Y, K] each, at times [I]; inf and 0 where T is too short."""
        rows, index = np.nonzero(self.allowed)
        columns = {name: np.tile(values[rows, index], len(times)) for name, values in self._columns.items()}
        cell = self._cell_of(columns, self.problem.base_s + self.shortest_turn)
        shape = (len(times), *self.allowed.shape)
        costs, slopes = np.full(shape, np.inf), np.zeros(shape)
        at = np.repeat(np.arange(len(times)), len(rows))
        where = at, np.tile(rows, len(times)), np.tile(index, len(times))
        costs[where], slopes[where] = costs_of(cell, times[at], price)
        return costs, slopes

    def _cell_of(self, columns: dict[str, Floats], constant: float = 0.0) -> Cell:
        problem = self.problem
        return cell_of(columns, problem.network, problem.server, problem.time_weight, constant)
