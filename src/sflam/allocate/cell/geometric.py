"""A round of stages as a geometric program: limits in logarithms, slopes and curvature; K devices, S stages.

    min  lam sum_s n_s T_s + sum_k W_k (E_tx + E_cmp)
    s.t. w_sk + u_sk t_k + v_sk tau_k + d_sk / b_k <= T_s                                                   (1.14)
         powers, clocks, band, caps, sum_s n_s T_s <= deadline

In ln b, ln t, ln tau and ln T_s every term is a sum of exponentials with positive coefficients, or a power series with
such (:mod:`sflam.allocate.cell.sending`), so that the logarithm of each limit's left side over its right one is convex,
and so is the objective. d is what devices receive in slots of a channel that they share the time of; 0 over a band.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.allocate.cell.arrays import Cell
from sflam.allocate.cell.sending import SendingTerms, sending_terms
from sflam.network.network import Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class StageProgram:
    """What is solved.

    Attributes:
        cell: the devices; its delays and clocks are in the stages.
        count: [S] how often each stage comes.
        up: [S, K] share of a device's sending that is in a stage.
        compute: [S, K] share of its computing whose clock is chosen.
        wait: [S, K] s that no plan changes.
        heard: [S, K] Hz s that a device receives with.
        floor: [S] s that a stage takes at least, for those that neither send nor compute in it.
        deadline: s for all stages.
        soft: whether caps and the deadline may be exceeded by a common factor, which is what is minimised.
    """

    cell: Cell
    count: Floats
    up: Floats
    compute: Floats
    wait: Floats
    heard: Floats
    floor: Floats
    deadline: float
    soft: bool = False

    @property
    def at_work(self) -> NDArray[np.bool_]:
        """[S, K] whether a device's choices matter in a stage."""
        return working(self.up, self.compute, self.heard)


@dataclass(eq=False, kw_only=True)
class Logarithms:
    """Logarithms of the variables, and ``excess``, of the common factor."""

    band: Floats
    send: Floats
    compute: Floats
    stages: Floats
    excess: float = 0.0

    def moved(self, step: Logarithms, by: float) -> Logarithms:
        """Return the point ``by`` of a step further."""
        return Logarithms(
            band=self.band + by * step.band,
            send=self.send + by * step.send,
            compute=self.compute + by * step.compute,
            stages=self.stages + by * step.stages,
            excess=self.excess + by * step.excess,
        )


@dataclass(eq=False, kw_only=True)
class LimitValues:
    """One number for every limit: its value, slack, multiplier or change; of those that do not hold, any.

    ``last`` bounds ``excess`` from below while it is minimised.
    """

    power: Any
    clock: Any
    radio: Any
    joint: Any
    stage: Any
    floor: Any
    band: Any
    deadline: Any
    last: Any

    def each(self, make: Callable[..., Floats], *others: LimitValues) -> LimitValues:
        """Return ``make`` of every field of this and others."""
        return LimitValues(
            **{
                name: make(value, *(getattr(other, name) for other in others))
                for name, value in vars(self).items()
            }
        )

    def flat(self, held: LimitValues) -> Floats:
        """Return the numbers of the limits that are ``held``, one after another."""
        return np.concatenate(
            [np.ravel(value)[np.ravel(getattr(held, name))] for name, value in vars(self).items()]
        )


@dataclass(eq=False, kw_only=True)
class Values:
    """What a point comes to, with derivatives that several terms share. Arrays [K] but where [S, K] is written."""

    objective: float
    limits: LimitValues
    sending: SendingTerms
    computing: Floats
    sent: Floats  # [S, K] shares of a stage's time
    computed: Floats  # [S, K]
    heard: Floats  # [S, K]
    bands: Floats
    times: Floats  # [S] n_s T_s
    joint: Floats  # J, what counts towards a joint cap


class Geometric:
    """A program with its values and derivatives; the objective is measured in ``scale``."""

    def __init__(self, program: StageProgram) -> None:
        self.program, cell = program, program.cell
        self.work = program.at_work
        self.free = cell.cycles > 0
        self.held = LimitValues(
            power=np.ones(len(cell), bool),
            clock=self.free,
            radio=np.isfinite(cell.radio_cap),
            joint=np.isfinite(cell.energy_cap),
            stage=self.work,
            floor=program.floor > 0,
            band=True,
            deadline=bool(np.isfinite(program.deadline)),
            last=program.soft,
        )
        self.scale = 1.0

    def value(self, at: Logarithms) -> Values:
        """Return what a point comes to."""
        program, cell = self.program, self.program.cell
        with np.errstate(over="ignore", divide="ignore", invalid="ignore", under="ignore"):
            t, tau, stages = np.exp(at.send), np.exp(at.compute), np.exp(at.stages)
            sending, slots = sending_terms(cell, at.band, at.send), program.heard * np.exp(-at.band)
            computing = np.where(self.free, cell.kappa * cell.cycles**3 / (tau * tau), 0.0)
            whole = program.wait + program.up * t + program.compute * tau + slots
            times = program.count * stages
            total = float(times.sum())
            radio = sending.radio + sending.fed
            spent = radio + computing
            joint = spent + cell.idle_power * (total + cell.constant)
            soft = at.excess if program.soft else 0.0
            limits = LimitValues(
                power=sending.power,
                clock=np.log(np.maximum(cell.cycles, 1e-300) / cell.max_clock) - at.compute,
                radio=np.log(radio / cell.radio_cap) - soft,
                joint=np.log(joint / cell.energy_cap) - soft,
                stage=np.log(whole) - at.stages[:, None],
                floor=np.log(np.maximum(program.floor, 1e-300)) - at.stages,
                band=float(np.log(np.exp(at.band).sum() / cell.bandwidth)),
                deadline=float(np.log(total / program.deadline)) - soft,
                last=-1.0 - at.excess,
            )
            objective = (
                at.excess if program.soft else cell.latency_weight * total + float(cell.weight @ spent)
            )
            bands = np.exp(at.band)
            return Values(
                objective=float(objective) / self.scale,
                limits=limits,
                sending=sending,
                computing=computing,
                sent=np.where(self.work, program.up * t / whole, 0.0),
                computed=np.where(self.work, program.compute * tau / whole, 0.0),
                heard=np.where(self.work, slots / whole, 0.0),
                bands=bands / bands.sum(),
                times=times,
                joint=joint,
            )

    def inside(self, values: Values) -> bool:
        """Return whether all limits hold strictly."""
        found = values.limits.flat(self.held)
        return bool((found < 0).all())

    def gradient(self, values: Values, price: LimitValues) -> Logarithms:
        """Return the gradient of the objective plus ``price`` times the limits."""
        program, cell, v, terms = self.program, self.program.cell, values, values.sending
        soft = program.soft
        weight = np.zeros(len(cell)) if soft else cell.weight / self.scale
        second = 0.0 if soft else cell.latency_weight / self.scale
        sending, any_ = price.radio / np.maximum(terms.radio + terms.fed, 1e-300), price.joint / v.joint
        radio = weight + sending + any_
        power = price.power * terms.lean
        total = float(v.times.sum())
        stages = second * v.times - price.stage.sum(1) - price.floor
        stages = stages + v.times * (float(any_ @ cell.idle_power) + price.deadline / total)
        send = radio * (terms.radio_slope + terms.fed) + power - terms.alone * price.power
        send = send + (price.stage * v.sent).sum(0)
        softened = price.radio.sum() + price.joint.sum() + price.deadline + price.last
        return Logarithms(
            band=radio * terms.radio_slope + power + price.band * v.bands - (price.stage * v.heard).sum(0),
            send=send,
            compute=-2 * (weight + any_) * v.computing - price.clock + (price.stage * v.computed).sum(0),
            stages=stages,
            excess=1 / self.scale - float(softened) if soft else 0.0,
        )

    def along(self, values: Values, step: Logarithms) -> LimitValues:
        """Return the change of every limit along a step."""
        program, cell, v, terms = self.program, self.program.cell, values, values.sending
        soft = step.excess if program.soft else 0.0
        radio = terms.radio_slope * (step.band + step.send) + terms.fed * step.send
        longer = float(v.times @ step.stages)
        joint = radio - 2 * v.computing * step.compute + cell.idle_power * longer
        return LimitValues(
            power=terms.lean * (step.band + step.send) - terms.alone * step.send,
            clock=-step.compute,
            radio=radio / np.maximum(terms.radio + terms.fed, 1e-300) - soft,
            joint=joint / v.joint - soft,
            stage=self.inner(v, step) - step.stages[:, None],
            floor=-step.stages,
            band=float(v.bands @ step.band),
            deadline=longer / float(v.times.sum()) - soft,
            last=-step.excess,
        )

    def inner(self, values: Values, step: Logarithms) -> Floats:
        """Return the change [S, K] of the logarithms of what devices take in each stage."""
        longer: Floats = values.sent * step.send + values.computed * step.compute - values.heard * step.band
        return longer

    def times(self, values: Values, price: LimitValues, slack: LimitValues, step: Logarithms) -> Logarithms:
        """Return Newton's matrix times a step: the curvature of the Lagrangian, and limits' own steepness."""
        program, cell, v, terms = self.program, self.program.cell, values, values.sending
        weight = np.zeros(len(cell)) if program.soft else cell.weight / self.scale
        second = 0.0 if program.soft else cell.latency_weight / self.scale
        along = self.along(values, step)
        stiff = price.each(np.divide, slack)
        ratio = stiff.each(np.multiply, along)
        kept = 0.0  # the common factor is beside the logarithms, which bend in the other variables alone
        for name in ("radio", "joint", "deadline", "band"):
            alone = getattr(along, name) + (step.excess if program.soft and name != "band" else 0.0)
            bent = getattr(price, name) * alone
            setattr(ratio, name, getattr(ratio, name) - bent)
            kept += float(np.sum(bent)) if name != "band" else 0.0
        steep = self.gradient(values, ratio)
        none = self.gradient(values, ratio.each(lambda each: each * 0.0))
        sending, any_ = price.radio / np.maximum(terms.radio + terms.fed, 1e-300), price.joint / v.joint
        radio = weight + sending + any_
        both = (radio * terms.radio_bend + price.power * terms.lean_bend) * (step.band + step.send)
        inner = self.inner(v, step)
        total = float(v.times.sum())
        idle = second + float(any_ @ cell.idle_power) + price.deadline / total
        found = Logarithms(
            band=steep.band
            - none.band
            + both
            + price.band * v.bands * step.band
            + (price.stage * v.heard * (step.band + inner)).sum(0),
            send=steep.send
            - none.send
            + both
            + radio * terms.fed * step.send
            + (price.stage * v.sent * (step.send - inner)).sum(0),
            compute=steep.compute
            - none.compute
            + 4 * (weight + any_) * v.computing * step.compute
            + (price.stage * v.computed * (step.compute - inner)).sum(0),
            stages=steep.stages - none.stages + idle * v.times * step.stages,
            excess=steep.excess - none.excess - kept if program.soft else 0.0,
        )
        return found


def working(up: Floats, compute: Floats, heard: Floats) -> NDArray[np.bool_]:
    """Return [S, K] where a device's choices change how long a stage takes it."""
    found: NDArray[np.bool_] = (up > 0) | (compute > 0) | (heard > 0)
    return found


def soft(program: StageProgram) -> StageProgram:
    """Return the program that finds by how much caps and deadline must be exceeded at least."""
    return replace(program, soft=True)
