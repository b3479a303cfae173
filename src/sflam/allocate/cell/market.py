"""The exact solver of problem A: two prices, a best response per device, and a certificate (2.2).

At the right price of bandwidth mu the devices together ask for B (inner root); at the right round time T, one more
second saves all of them together as much as it costs, lam (outer root). Both are roots of monotone functions of one
number, so the work is O(K). Problem (2.1) is convex (Theorem 1): the answer is the global optimum, and (2.9) bounds its
distance from it without another solver.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from sflam.allocate.cell.arrays import Cell
from sflam.allocate.cell.best_response import Response
from sflam.allocate.cell.energy_caps import respond_within
from sflam.allocate.cell.fixed_bandwidth import shares
from sflam.allocate.cell.shares import Shares
from sflam.allocate.cell.spans import fitting
from sflam.allocate.curves import TINY
from sflam.allocate.limits import Impossible, check_reach
from sflam.allocate.roots import decreasing_root
from sflam.network.network import Floats

Respond = Callable[[Cell, float, float, Response | None], Response]
CORNER = 1e-9  # relative distance from T_min at which prices are taken where the optimum is T_min itself
FIRST_STRETCH = 0.5  # T / T_min - 1 where the search starts
NARROW = 1e-3  # share of T_min below which stretches are of what devices do not wait or compute
LOOSE = 1e-9  # relative gap from which a second tangent is drawn
NOTHING = 1e-6  # of lam: worth of time where all devices are done early
TOO_SMALL = (
    "the energy caps are too small for the band: however long the round, circuits draw power while devices send, and "
    "sending fast enough takes more bandwidth than there is; raise the caps, give more bandwidth, fewer bits or an "
    "earlier cut"
)
ROUNDING = 1e-14  # of T_min: a shorter stretch would be lost


@dataclass(eq=False, kw_only=True)
class Solution:
    """The optimum of a cell. Arrays [K]; the objective without what the plan does not change.

    Attributes:
        time: T, s.
        price: mu, 1/Hz.
        answer: the devices' answers at these prices; bandwidths sum to B.
        objective: lam T + sum W (E_tx + E_cmp).
        lower_bound: (2.9).
        shortest: T_min, s.
        balanced: a price of bandwidth at which devices' seconds are worth what one more costs them, and their answers.
    """

    time: float
    price: float
    answer: Response
    objective: float
    lower_bound: float
    shortest: float
    balanced: tuple[float, Response]

    def shares(self, cell: Cell) -> Shares:
        """Return bandwidth, power p = G b (e^x - 1) and clock C / tau; full speed where no clock is chosen."""
        answer = self.answer
        return shares(cell, answer.bandwidth, answer.transmit, answer.compute)


class Market:
    """A cell whose devices answer prices; remembers the last answers as starts for the next.

    Args:
        cell: the devices.
        price: a guess of the price of bandwidth, 1/Hz.
        time: a guess of the round time, s.
        respond: how devices answer.
    """

    def __init__(
        self, cell: Cell, price: float = 0.0, time: float = 0.0, respond: Respond = respond_within
    ) -> None:
        self.cell = cell
        self.respond = respond
        self.price = price
        self.time = time
        self.near: Response | None = None
        self.tight: Response | None = None  # of least bandwidth
        self.longest = np.inf  # s of the longest round that holds all caps
        # time, price and answers of the last rounds that were too short (True) and too long
        self._looked: dict[bool, tuple[float, float, Response]] = {}

    def ask(self, time: float, price: float) -> Response:
        """Return the devices' answers."""
        self.near = self.respond(self.cell, time, price, self.near)
        return self.near

    def clear(self, time: float, tolerance: float = 1e-13) -> Response:
        """Return the answers at the price where the devices ask for at most B together, exactly B if they can (2.8)."""
        answer: Response | None = None
        cell = self.cell
        if not (cell.weight > 0).any():
            self.price = self.price or 1.0
            return self.ask(time, self.price)

        def excess(log_price: float) -> float:
            nonlocal answer
            answer = self.ask(time, float(np.exp(log_price)))
            return float(np.log(answer.bandwidth.sum() / cell.bandwidth))

        start = np.log(self.price) if self.price > 0 else self._first_price(time)
        root = decreasing_root(excess, start, slope=-0.4, low=-600, high=600, tolerance=tolerance)
        self.price = float(np.exp(root))
        assert answer is not None
        return answer

    def _first_price(self, time: float) -> float:
        """Return ln mu at which the typical device would ask for an equal share."""
        cell = self.cell
        counted = cell.weight > 0
        spare = (time - cell.busy)[counted]
        x = cell.payload[counted] * len(cell) / (cell.bandwidth * spare)
        value = (
            np.log(cell.weight[counted] * cell.noise[counted] * spare)
            + np.minimum(x, 50)
            + 2 * np.log(x / (1 + x))
        )
        return float(np.median(value))

    def shortest(self) -> float:
        """Return T_min: all devices at full power and speed share B.

        Raises:
            Impossible: a cap leaves a device no time at which it fits.
        """
        cell = self.cell
        endless = cell.busy + cell.soonest(cell.payload)
        floor = float(endless.max())
        check_reach(cell.busy, endless - cell.busy)
        self.longest = np.inf
        if cell.waits:
            first, self.longest = fitting(cell, floor)
            return first

        def excess(log_more: float) -> float:
            b = self.least_bandwidth(floor + float(np.exp(log_more)))
            return float(np.log(b.sum() / cell.bandwidth))

        with np.errstate(divide="ignore", over="ignore"):
            guess = cell.payload.sum() / cell.bandwidth
            root = decreasing_root(excess, float(np.log(guess / 3)), slope=-0.7, low=-60, high=120)
        if cell.circuits and excess(root) > CORNER:
            raise Impossible(TOO_SMALL)
        return floor + float(np.exp(root))

    def least_bandwidth(self, time: float) -> Floats:
        """Return [K] Hz that each device needs at least to be done at ``time``; inf where none suffices."""
        cell = self.cell
        if np.isfinite(cell.energy_cap).any():
            self.tight = respond_within(cell, time, 1.0, self.tight, least=True)
            return self.tight.bandwidth
        return cell.least_bandwidth(time - cell.busy)

    def solve(self) -> Solution:
        """Return the optimum.

        Raises:
            Impossible: the deadline is shorter than any round.
        """
        cell, lam = self.cell, self.cell.latency_weight
        self._looked = {}
        shortest = self.shortest()
        if cell.deadline < shortest:
            raise Impossible(
                f"the shortest possible round takes {shortest + cell.constant:.6g} s: the deadline falls "
                f"{shortest - cell.deadline:.6g} s short; raise it, or give more bandwidth, fewer bits "
                "or an earlier cut"
            )
        span = self._span(shortest)
        least = max(CORNER, ROUNDING * shortest / span)

        def at(stretch: float) -> float:
            # of a span that is the whole round, as ever: other roundings would be other plans
            whole = span == shortest
            return shortest * (1 + stretch) if whole else shortest + span * stretch

        corner = at(least)
        if not (cell.weight > 0).any() or cell.deadline <= corner:
            return self._at_corner(shortest, corner)
        last = min(cell.deadline, self.longest)
        if last <= corner:
            return self._at_corner(shortest, corner)
        far = last / shortest - 1 if span == shortest else (last - shortest) / span
        longest = float(np.log(min(far, 1e12 * shortest / span)))

        least_worth = NOTHING if cell.circuits else TINY  # no time is worth anything where all are done early

        def worth(stretch: float) -> float:
            time = at(float(np.exp(stretch)))
            answer = self.clear(time)
            value = answer.time_price.sum()
            self._looked[bool(value > lam)] = time, self.price, answer
            return float(np.log(max(value / lam, least_worth))) if lam > 0 else np.inf

        if lam == 0:
            stretch = longest
        else:
            start = np.log(FIRST_STRETCH)
            if self.time > corner:
                start = np.log(self.time / shortest - 1) + np.log(shortest / span)
            stretch = decreasing_root(
                worth, float(start), slope=-1.0, low=float(np.log(least)), high=longest, tolerance=1e-12
            )
        if stretch <= np.log(least):
            return self._at_corner(shortest, corner)
        time = last if stretch >= longest else at(float(np.exp(stretch)))
        return self._solution(time, self.clear(time), shortest)

    def _span(self, shortest: float) -> float:
        """Return s that stretches of T_min are measured in: T_min, or what is not waiting where that is little."""
        span = shortest - float(self.cell.busy.max())
        return span if 0 < span < NARROW * shortest else shortest

    def _at_corner(self, shortest: float, corner: float) -> Solution:
        """Return T = T_min with least bandwidths, with prices from just beside it (section 2.2, corner).

        Where one device makes the round long, least bandwidths cost the others power that a sliver of time spares: the
        better of both is returned.
        """
        beside = self.clear(corner)
        chosen = respond_within(self.cell, shortest, 1.0, least=True)
        if not (self.cell.weight > 0).any():  # answers are the same at any price: take the one that balances
            self.price *= self.cell.latency_weight / float(self.ask(shortest, self.price).time_price.sum())
        priced = self.ask(shortest, self.price)
        found = replace(
            self._solution(shortest, chosen, shortest, priced), balanced=self._balanced(shortest, priced)
        )
        if not (self.cell.weight > 0).any() or corner > min(self.cell.deadline, self.longest):
            return found
        return min(found, self._solution(corner, beside, shortest), key=lambda solution: solution.objective)

    def _balanced(self, shortest: float, answer: Response) -> tuple[float, Response]:
        """Return the price at which seconds of a round of T_min are worth lam, and the answers, from those at another.

        Devices at full power, or at their radio's cap, answer every price alike, and their seconds are linear in it.
        """
        worth = float(answer.time_price.sum())
        dearer = float(self.ask(shortest, 2 * self.price).time_price.sum())
        if not dearer > worth:
            return self.price, answer
        price = self.price * max(1 + (self.cell.latency_weight - worth) / (dearer - worth), 0.0)
        return (price, self.ask(shortest, price)) if price > 0 else (self.price, answer)

    def _solution(
        self, time: float, answer: Response, shortest: float, priced: Response | None = None
    ) -> Solution:
        """Return the answers as a solution: bandwidth that is left is given to all, in proportion.

        ``priced`` are the answers at the market's price, where that is not what ``answer`` is.
        """
        cell = self.cell
        wanted = answer.bandwidth
        scale = cell.bandwidth / wanted.sum()
        x, transmit, energy = cell.spread(wanted * scale, answer.transmit, answer.efficiency)
        spent = energy + cell.compute_energy(answer.compute)
        objective = cell.latency_weight * time + float(cell.weight @ spent)
        upper = min(
            cell.deadline,
            self.longest,
            objective / cell.latency_weight if cell.latency_weight > 0 else np.inf,
        )
        bound = self._bound(priced or answer, time, shortest, upper)
        if bound < objective * (1 - LOOSE):
            bound = max(bound, self._bound_between())
        return Solution(
            time=time,
            price=self.price,
            answer=replace(answer, efficiency=x, transmit=transmit, bandwidth=wanted * scale),
            objective=objective,
            lower_bound=min(bound, objective),
            shortest=shortest,
            balanced=(self.price, priced or answer),
        )

    def _bound(self, answer: Response, time: float, shortest: float, upper: float) -> float:
        """Return the certificate (2.9) from the answers at (time, price); T is in [shortest, upper]."""
        lam = self.cell.latency_weight
        slope = lam - float(answer.time_price.sum())
        value = lam * time + self.dual(answer, time, self.price)
        least = lam * shortest + float(self.cell.weight @ self.cell.least_energy)  # of any plan
        if slope > 0:
            return max(value - slope * (time - shortest), least)
        return max(value + slope * (upper - time), least) if upper < np.inf else least

    def _bound_between(self) -> float:
        """Return the bound by two rounds, one too short, one too long, whose tangents of L cross: where the worth of
        time jumps, as at a corner of two caps, no single tangent is flat. -inf without both."""
        if len(self._looked) < 2:
            return -np.inf
        lam = self.cell.latency_weight
        (left, dear, hurried), (right, cheap, idle) = self._looked[True], self._looked[False]
        falls, rises = (lam - float(answer.time_price.sum()) for answer in (hurried, idle))
        first = lam * left + self.dual(hurried, left, dear)
        last = lam * right + self.dual(idle, right, cheap)
        if not falls < 0 < rises:
            return -np.inf
        return (rises * (first - falls * left) - falls * (last - rises * right)) / (rises - falls)

    def dual(self, answer: Response, time: float, price: float) -> float:
        """Return sum_k D_k - mu B at a price of bandwidth and at T: L(T, mu) without lam T."""
        cell = self.cell
        energy = answer.energy(cell) + cell.compute_energy(answer.compute)
        value = cell.weight @ energy + price * (answer.bandwidth.sum() - cell.bandwidth)
        if answer.extra is not None:
            capped = answer.extra > 0  # weak duality holds for any multiplier of the joint cap
            value += answer.extra[capped] @ (energy - cell.left(time))[capped]
        return float(value)
