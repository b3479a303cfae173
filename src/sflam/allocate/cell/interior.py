"""The interior point that solves rounds of stages, :mod:`sflam.allocate.cell.geometric`; K devices, S stages.

Newton's system has a block of three for each device, tied by S stages and one band, so that the work is O(K S^2).
Limits have slacks, and need not hold on the way; every step keeps slacks and multipliers positive, and aims at equal
products of the two, ever smaller ones (the primal-dual method of Boyd and Vandenberghe, 11.7, with slacks). The best
point seen is returned: what it is worth is for the certificate to say.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sflam.allocate.cell.geometric import Geometric, LimitValues, Logarithms, Values
from sflam.network.network import Floats

ROUNDS = 120
CENTRE = 0.1  # of the mean product of slack and multiplier that a step aims at
NEAR = 0.99  # of the way to the nearest limit
FARTHEST = 1.5  # e-folds of any variable in a step
FLOOR = 1e-11  # of the objective: the least sum of these products that is aimed at
CLOSE = 3e-11  # estimated gap at the end
RANGE = 20.0  # e-folds that variables may be from the optimum, for the estimate
PATIENCE = 12  # steps without a better point
FIRST = 0.1  # least slack at the start
LEAST, MOST = 0.03, 0.6  # of the mean product that a step aims at
REGULAR = 1e-15
REFINED = 8  # times at most


class Interior(Geometric):
    """The solver of one program."""

    def newton(self, values: Values, price: LimitValues, slack: LimitValues, right: Logarithms) -> Logarithms:
        """Return the step that Newton's system gives for a right side, refined while that helps; NaN for none."""
        with np.errstate(all="ignore"):
            try:
                return self._refined(self.factored(values, price, slack), values, price, slack, right)
            except np.linalg.LinAlgError:
                return right.moved(right, np.nan)

    def _refined(
        self,
        solve: Callable[[Logarithms], Logarithms],
        values: Values,
        price: LimitValues,
        slack: LimitValues,
        right: Logarithms,
    ) -> Logarithms:
        step, last = solve(right), np.inf
        for _ in range(REFINED):
            left = right.moved(self.times(values, price, slack, step), -1.0)
            if (size := _norm(left)) > 0.5 * last or size == 0:
                break
            step, last = step.moved(solve(left), 1.0), size
        return step

    def factored(
        self, values: Values, price: LimitValues, slack: LimitValues
    ) -> Callable[[Logarithms], Logarithms]:
        """Return what solves Newton's system for a right side."""
        program, cell, v, terms = self.program, self.program.cell, values, values.sending
        soft, count, stages = program.soft, len(cell), len(program.count)
        weight = np.zeros(count) if soft else cell.weight / self.scale
        second = 0.0 if soft else cell.latency_weight / self.scale
        stiff = price.each(np.divide, slack)
        radio_j = np.maximum(terms.radio + terms.fed, 1e-300)
        sending, any_ = price.radio / radio_j, price.joint / v.joint
        radio = weight + sending + any_
        block = np.zeros((count, 3, 3))
        both = radio * terms.radio_bend + price.power * terms.lean_bend
        block[:, :2, :2] += both[:, None, None]
        block[:, 1, 1] += radio * terms.fed
        block[:, 2, 2] += 4 * (weight + any_) * v.computing + stiff.clock + ~self.free
        block[:, 0, 0] += price.band * v.bands

        def outer(vector: Floats, by: Floats) -> None:
            block[:] += by[:, None, None] * vector[:, :, None] * vector[:, None, :]

        none = np.zeros(count)
        slope, fed = terms.radio_slope, terms.fed
        outer(np.stack([terms.lean, terms.lean - terms.alone, none], 1), stiff.power)
        of_radio = np.stack([slope, slope + fed, none], 1) / radio_j[:, None]
        outer(of_radio, stiff.radio - price.radio)
        of_joint = np.stack([slope, slope + fed, -2 * v.computing], 1) / v.joint[:, None]
        outer(of_joint, stiff.joint - price.joint)
        # of stages: prices times their own curvature, and steepness
        curve = stiff.stage - price.stage
        block[:, 1, 1] += (price.stage * v.sent + curve * v.sent**2).sum(0)
        block[:, 2, 2] += (price.stage * v.computed + curve * v.computed**2).sum(0)
        block[:, 0, 0] += (price.stage * v.heard + curve * v.heard**2).sum(0)
        for i, j, one, other in (
            (1, 2, v.sent, v.computed),
            (0, 1, -v.heard, v.sent),
            (0, 2, -v.heard, v.computed),
        ):
            mixed = (curve * one * other).sum(0)
            block[:, i, j] += mixed
            block[:, j, i] += mixed

        size = stages + 2  # stages, the common factor, the band
        ties = np.zeros((count, 3, size))
        ties[:, 0, :stages] = (stiff.stage * v.heard).T
        ties[:, 1, :stages] = -(stiff.stage * v.sent).T
        ties[:, 2, :stages] = -(stiff.stage * v.computed).T
        waits = cell.idle_power[:, None] * v.times / v.joint[:, None]  # [K, S]
        ties[:, :, :stages] += (
            (stiff.joint - price.joint)[:, None, None] * of_joint[:, :, None] * waits[:, None]
        )
        if soft:
            ties[:, :, stages] -= stiff.radio[:, None] * of_radio + stiff.joint[:, None] * of_joint
        ties[:, 0, stages + 1] = v.bands
        total = float(v.times.sum())
        share = v.times / total
        top = np.zeros((size, size))
        diagonal = (second + float(any_ @ cell.idle_power) + price.deadline / total) * v.times
        top[:stages, :stages] = np.diag(diagonal + stiff.stage.sum(1) + stiff.floor)
        top[:stages, :stages] += (stiff.deadline - price.deadline) * np.outer(share, share)
        top[:stages, :stages] += waits.T @ ((stiff.joint - price.joint)[:, None] * waits)
        top[stages, stages] = 1.0
        if soft:
            pulled = -(stiff.deadline * share + stiff.joint @ waits)
            top[stages, :stages] = top[:stages, stages] = pulled
            top[stages, stages] = stiff.radio.sum() + stiff.joint.sum() + stiff.deadline + stiff.last
        bent = stiff.band - price.band
        top[-1, -1] = -1 / bent if bent else -1e300
        # scaled to ones on the diagonal, so that devices of very unlike weights are solved alike
        size_of = 1 / np.sqrt(np.maximum(np.einsum("kii->ki", block), 1e-300))
        scaled = block * size_of[:, :, None] * size_of[:, None, :]
        scaled[:, range(3), range(3)] += REGULAR
        inverse = np.linalg.inv(scaled) * size_of[:, :, None] * size_of[:, None, :]
        solved = inverse @ ties
        top = top - np.einsum("kij,kil->jl", ties, solved)
        even = 1 / np.sqrt(np.maximum(np.abs(np.diag(top)), 1e-300))
        core = np.linalg.inv(top * even[:, None] * even) * even[:, None] * even

        def solve(right: Logarithms) -> Logarithms:
            own = np.stack([right.band, right.send, right.compute], 1)
            side = np.r_[right.stages, right.excess if soft else 0.0, 0.0] - np.einsum(
                "kij,ki->j", solved, own
            )
            shared = core @ side
            own = np.einsum("kij,kj->ki", inverse, own) - solved @ shared
            return Logarithms(
                band=own[:, 0],
                send=own[:, 1],
                compute=np.where(self.free, own[:, 2], 0.0),
                stages=shared[:stages],
                excess=float(shared[stages]) if soft else 0.0,
            )

        return solve

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")  # a search without an end is given up
    def solve(
        self, at: Logarithms, enough: Callable[[Values], bool] | None = None
    ) -> tuple[Logarithms, LimitValues, Values]:
        """Return the best point found from one strictly inside, the multipliers, and what it comes to.

        Args:
            at: the start.
            enough: ends the search early.
        """
        values = self.value(at)
        self.scale = 1.0 if self.program.soft else values.objective * self.scale
        values, held = self.value(at), self.held
        number = float(sum(np.sum(each) for each in vars(held).values()))
        slack = values.limits.each(lambda h, on: np.where(on, np.maximum(-h, FIRST), 1.0), held)
        price = slack.each(lambda s, on: np.where(on, CENTRE / (number * s), 0.0), held)
        centre, best, since = CENTRE, (np.inf, at, price, values), 0
        for _ in range(ROUNDS):
            off = values.limits.each(lambda h, s, on: np.where(on, h + s, 0.0), slack, held)
            products = float((price.flat(held) * slack.flat(held)).sum())
            size = 1.0 if self.program.soft else values.objective
            gap = (products + RANGE * _norm(self.gradient(values, price))) / size + _most(off.flat(held))
            since += 1
            if gap < best[0]:
                best, since = (gap, at, price, values), 0
            if gap <= CLOSE or since > PATIENCE or not np.isfinite(gap) or (enough and enough(values)):
                break
            goal = max(centre * products, FLOOR * size) / number
            pull = slack.each(
                lambda s, p, r, on, m=goal: np.where(on, (m + p * r) / s, 0.0), price, off, held
            )
            right = self.gradient(values, pull)
            step = self.newton(values, price, slack, right.moved(right, -2.0))
            if not np.isfinite(largest(step)):
                break
            change = self.along(values, step)
            give = off.each(lambda r, d, on: np.where(on, -r - d, 0.0), change, held)
            turn = pull.each(
                lambda w, p, d, s, on: np.where(on, w + p / s * d - p, 0.0), price, change, slack, held
            )
            by = min(1.0, FARTHEST / max(largest(step), 1e-300), _room(slack.flat(held), give.flat(held)))
            ahead = min(1.0, _room(price.flat(held), turn.flat(held)))
            at = at.moved(step, by)
            slack = slack.each(lambda s, d, a=by: s + a * d, give)
            price = price.each(lambda p, d, a=ahead: p + a * d, turn)
            values = self.value(at)
            centre = float(np.clip((1 - min(by, ahead)) ** 2, LEAST, MOST))
        return best[1:]


def _norm(force: Logarithms) -> float:
    parts = (force.band, force.send, force.compute, force.stages, np.atleast_1d(force.excess))
    return float(np.sqrt(sum(float(part @ part) for part in parts)))


def _room(numbers: Floats, change: Floats) -> float:
    """Return the share of a change that keeps positive numbers positive, and a little off 0."""
    falls = change < 0
    return NEAR * float((numbers[falls] / -change[falls]).min()) if falls.any() else 1.0


def _most(numbers: Floats) -> float:
    return float(np.abs(numbers).max(initial=0.0))


def largest(step: Logarithms) -> float:
    """Return the e-folds of the variable that a step moves most."""
    parts = (step.band, step.send, step.compute, step.stages, np.atleast_1d(step.excess))
    return max(float(np.abs(part).max(initial=0.0)) for part in parts)
