"""What every pair of widths, up and down, costs every device: what bits in both directions are chosen by.

The way up is a payload; the way down takes a time that no bandwidth or power changes (c_k), and joules of receiving.
K devices, Q widths up, D down, O = Q D pairs, I times.
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
from sflam.allocate.cell.problem import Problem
from sflam.allocate.limits import Impossible
from sflam.cost.convergence import quantization_noise
from sflam.network.network import Floats

Rows = NDArray[np.int64]
Place = Callable[[Problem], Problem]
"""Gives a problem at its bits down the delays and the receiving that these take."""


@dataclass(frozen=True, eq=False)
class BitPairs:
    """What every pair costs every device.

    Attributes:
        problem: its bits up and down are not used.
        place: see ``Place``.
    """

    problem: Problem
    place: Place

    @cached_property
    def widths(self) -> Rows:
        """[Q] to choose from in either direction, ascending."""
        return np.array(self.problem.widths, np.int64)

    @cached_property
    def up(self) -> Rows:
        """[O] bits up of each pair."""
        return np.repeat(self.widths, len(self.widths))

    @cached_property
    def down(self) -> Rows:
        """[O] bits down of each pair."""
        return np.tile(self.widths, len(self.widths))

    @cached_property
    def noise(self) -> Floats:
        """[O, K] chi_k v(q) + chi'_k v(d), what a pair adds to the rounds."""
        up = quantization_noise(self.up)[:, None] * self.problem.each("sensitivity")
        down = quantization_noise(self.down)[:, None] * self.problem.each("sensitivity_down")
        total: Floats = up + down
        return total

    @cached_property
    def payload(self) -> Floats:
        """[Q, K] nats up."""
        return self.problem.payload_at(self.widths)

    @cached_property
    def constant(self) -> float:
        """The objective's part that is the same at all pairs."""
        return self.problem.change(receiving=0.0).constant

    @cached_property
    def lowest(self) -> Problem:
        """The problem at the fewest bits: no pair has a shorter round, or takes less."""
        return self.at(self.common(0, 0))

    @cached_property
    def earliest(self) -> Floats:
        """[O, K] s before which a device cannot be done at a pair; inf where a cap forbids its bits down, or they are
        below its floor up."""
        columns = self._columns
        with np.errstate(invalid="ignore"):
            every = self._cell_of(columns)
            done = (every.busy + every.soonest(self.payload[:, None])).reshape(len(self.up), -1)
        return np.where(np.isnan(done) | self.below, np.inf, done)

    @cached_property
    def below(self) -> NDArray[np.bool_]:
        """[O, K] whether the bits up of a pair are below a device's floor."""
        found: NDArray[np.bool_] = self.up[:, None] < self.problem.each("bits_floor")
        return found

    @cached_property
    def heard(self) -> Floats:
        """[D, K] what a device's receiving adds to the objective."""
        problem = self.problem
        joules = [self._placed(width).received_j for width in self.widths.tolist()]
        weighted: Floats = (1 - problem.latency_weight) * np.array(joules) * problem.network.energy_weight
        return weighted

    @cached_property
    def _columns(self) -> dict[str, Floats]:
        """[D, K] arrays of :class:`Cell` at the fewest bits up; NaN where a cap forbids the bits down."""
        every = np.arange(len(self.problem))
        names = arrays_of(kind_of(self.problem.network))
        found = {name: np.full((len(self.widths), len(every)), np.nan) for name in names}
        for row, width in enumerate(self.widths.tolist()):
            whole = self._cell(self._placed(width))
            for index in [every] if whole is not None else every[:, None]:
                cell = whole if len(index) == len(every) else self._cell(self._placed(width, index))
                if cell is not None:
                    for name in names:
                        found[name][row, index] = getattr(cell, name)
        return found

    def _placed(self, width: int, index: Rows | None = None) -> Problem:
        """Return the problem, of some devices alone, at the fewest bits up and so many down."""
        part = self.problem if index is None else self.problem.only(index)
        return self.place(part.change(bits=part.widest(self.widths[0]), bits_down=width))

    @staticmethod
    def _cell(problem: Problem) -> Cell | None:
        try:
            return problem.cell
        except Impossible:
            return None

    def row(self, up: int, down: int) -> int:
        """Return the number of a pair."""
        place = np.searchsorted(self.widths, [up, down])
        return int(place[0] * len(self.widths) + place[1])

    def common(self, up: int, down: int) -> Rows:
        """Return [K] the pairs of the widths in these places, or of a device's floor up where that is higher."""
        lowest = np.searchsorted(self.widths, self.problem.widest(self.widths[up]))
        return np.asarray(lowest * len(self.widths) + down, np.int64)

    def at(self, rows: Rows) -> Problem:
        """Return the problem at the pairs in ``rows`` [K]."""
        return self.place(self.problem.change(bits=self.up[rows], bits_down=self.down[rows]))

    def costs(self, times: Floats, price: float) -> tuple[Floats, Floats]:
        """Return D_k(T, mu, o), receiving included, and -dD_k/dT, [I, O, K] each, at times [I]; inf and 0 where T is
        too short."""
        shape = (len(times), len(self.up), len(self.problem))
        at, rows, index = np.indices(shape).reshape(3, -1)
        costs, slopes = self.of(rows, index, times[at], price)
        return costs.reshape(shape), slopes.reshape(shape)

    def of(self, rows: Rows, index: Rows, times: Floats, price: float) -> tuple[Floats, Floats]:
        """Return the same [n] for pairs ``rows`` of devices ``index`` at ``times``, [n] each."""
        place_up, place_down = np.divmod(rows, len(self.widths))
        columns = {name: values[place_down, index] for name, values in self._columns.items()}
        columns["payload"] = self.payload[place_up, index]
        allowed = np.flatnonzero(np.isfinite(columns["delay"]) & ~self.below[rows, index])
        cell = self._cell_of({name: values[allowed] for name, values in columns.items()})
        costs, slopes = np.full(len(rows), np.inf), np.zeros(len(rows))
        costs[allowed], slopes[allowed] = costs_of(cell, times[allowed], price)
        return costs + self.heard[place_down, index], slopes

    def _cell_of(self, columns: dict[str, Floats]) -> Cell:
        problem = self.problem
        base_s = float(problem.base_s)
        return cell_of(columns, problem.network, problem.server, problem.time_weight, base_s)
