"""The optimum where all wait for all at every stage of a round (1.14), with a certificate of its own; K devices.

What a device does in a stage is linear in its times of sending and computing, so that (2.1) with T = sum_s n_s T_s
stays jointly convex: Theorem 1 holds for its energy, and the rest is linear. The solver is that of
:mod:`sflam.allocate.cell.interior`.

Certificate. With multipliers y of the limits h <= 0, the Lagrangian L = f + sum y h is convex in the logarithms z, so
that at any point z' and over any box that holds the optimum

    J* >= L(z') + min over z in the box of grad L(z') (z - z')

for any y >= 0: no solver is trusted. The box is what time, power and clocks leave.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from sflam.allocate.cell.airtime import AirtimeCell
from sflam.allocate.cell.arrays import Cell
from sflam.allocate.cell.geometric import LimitValues, Logarithms, StageProgram, Values, soft, working
from sflam.allocate.cell.interior import Interior, largest
from sflam.allocate.cell.problem import Problem
from sflam.allocate.cell.shares import Shares
from sflam.allocate.cell.stages import waits_in
from sflam.allocate.curves import inverse_growth
from sflam.allocate.limits import Impossible, check_reach
from sflam.network.network import Floats

FITS = -0.05  # ln of the common factor at which a start is well within all caps
TIGHT = 1e-9  # of the same, that is none
ROOM = 0.02  # of the same, that a search is given to go on in
ROUNDED = 3e-10  # of the same, that passes for rounding
SHARPER = 8  # steps at most
SHARP = 1e-10  # gap that is small enough
ENDLESS = LimitValues(**dict.fromkeys((each.name for each in fields(LimitValues)), 1e300))
DOUBTFUL = 1e-3  # gap at which limits are looked at by themselves
SLACK = 1.2  # of times over the shortest at the start


@dataclass(frozen=True, kw_only=True, eq=False)
class StageSolution:
    """The optimum. Arrays [K]; the objective without what the plan does not change.

    Attributes:
        shares: of the devices.
        time: s of all stages together.
        objective: lam T + sum W (E_tx + E_cmp).
        lower_bound: certified.
        price: what an e-fold of each limit is worth.
        bandwidth_price: per Hz of the band.
        second: [S, K] 1/s, what a second of a device in a stage is worth.
        efficiency: x, nat/s/Hz.
    """

    shares: Shares
    time: float
    objective: float
    lower_bound: float
    price: LimitValues
    bandwidth_price: float
    second: Floats
    efficiency: Floats


def solve(problem: Problem, cell: Cell) -> StageSolution:
    """Return the optimum of a problem whose devices wait for each other.

    Args:
        problem: what is asked.
        cell: its own, or one with other weights.

    Raises:
        Impossible: no plan holds the limits.
    """
    assert problem.stages is not None, "the problem has no stages"
    stages = problem.stages
    steps = problem.each("local_steps")
    quiet, heard = steps * problem.each("delay").astype(float), np.zeros(len(problem))
    if isinstance(cell, AirtimeCell):
        heard = steps * problem.each("receiving").astype(float)
        quiet = np.maximum(quiet - heard, 0.0)
        heard = heard * cell.channel
    wait, up = waits_in(problem, stages, quiet)
    received, _ = waits_in(problem, stages, heard)
    if not problem.choose_clocks:
        wait = wait + stages.compute * (problem.cycles / cell.max_clock)
    return best(cell, stages.count, wait, up, stages.compute, received)


def best(
    cell: Cell, count: Floats, wait: Floats, up: Floats, compute: Floats, heard: Floats
) -> StageSolution:
    """Return the optimum over stages.

    Args:
        cell: the devices; ``cycles`` are 0 where clocks are fixed, and ``delay`` is not used: it is in ``wait``.
        count: [S] how often a stage comes.
        wait: [S, K] s that no plan changes.
        up: [S, K] share of a device's sending that is in a stage.
        compute: [S, K] share of its computing whose clock is chosen.
        heard: [S, K] Hz s that it receives with, in slots of a channel; 0 over a band.

    Raises:
        Impossible: no plan holds the limits.
    """
    compute, soonest = np.where(cell.cycles > 0, compute, 0.0), _fastest(cell)[0]
    check_reach(count @ (wait + compute * cell.least_compute + heard / cell.bandwidth), count @ up * soonest)
    alike, where = _merged(np.concatenate([wait, up, compute, heard], axis=1))
    times = np.bincount(where, weights=count.astype(float), minlength=len(alike))
    wait, up, compute, heard = (part[alike] for part in (wait, up, compute, heard))
    program, constant = _program(cell, times.astype(float), wait, up, compute, heard)
    cell = program.cell
    interior = Interior(program)
    at, price, values = interior.solve(_start(program))
    limited = bool(np.isfinite(cell.radio_cap).any() or np.isfinite(cell.energy_cap).any())
    if (limited or np.isfinite(program.deadline)) and not _solved(interior, at, price, values):
        at, price, values = interior.solve(_fitting(program, _start(program), limited))
    if (most := _outside(interior, values)) > TIGHT:  # a search that got stuck goes on from well inside
        last = interior.scale
        again = interior.solve(at.moved(_longer(interior, at), 1.01 * most + ROOM))
        if _outside(interior, again[2]) < most:
            at, price, values = again
        else:
            interior.scale = last
    scale = interior.scale
    bound = sharpest(interior, at, price, values) * scale
    at, values = _within(interior, at, values, limited)
    objective = values.objective * scale
    worth = price.each(lambda each, is_held: np.where(is_held, each * scale, 0.0), interior.held)
    b, t = np.exp(at.band), np.exp(at.send)
    band, share = cell.split(b)
    with np.errstate(divide="ignore", invalid="ignore"):
        power = cell.noise * band * np.expm1(cell.payload / (b * t))
        power = np.where(cell.full_power > 0, cell.max_power, power)
        clock = np.where(cell.cycles > 0, cell.cycles / np.exp(at.compute), cell.max_clock)
        whole = program.wait + program.up * t + program.compute * np.exp(at.compute) + program.heard / b
        second = np.where(program.at_work, worth.stage / whole, 0.0)
    shares = Shares(
        bandwidth=band,
        airtime=share,
        power=np.minimum(power, cell.max_power) * cell.amplifier_efficiency,
        clock=np.minimum(clock, cell.max_clock),
    )
    more = cell.latency_weight * constant
    full = np.zeros(wait.shape)
    full[working(up, compute, heard).any(axis=1)] = second
    full = full[where] * (count / times[where])[:, None]
    return StageSolution(
        shares=shares,
        time=float(values.times.sum()) + constant,
        objective=objective + more,
        lower_bound=min(bound, objective) + more,
        price=worth,
        bandwidth_price=float(worth.band) / cell.bandwidth,
        second=full,
        efficiency=np.where(cell.full_power > 0, np.log1p(cell.snr_bandwidth / band), cell.payload / (b * t)),
    )


def _fastest(cell: Cell) -> tuple[Floats, Floats]:
    """Return the s [K] of sending with all there is to share, and the largest x that power allows."""
    if isinstance(cell, AirtimeCell):
        return cell.payload / (cell.full_efficiency * cell.bandwidth), cell.full_efficiency
    return cell.payload / cell.snr_bandwidth, np.full(len(cell), np.inf)


def _merged(columns: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which stages are the first of their kind, and the place of each stage's kind among them."""
    kinds: dict[bytes, int] = {}
    where = [kinds.setdefault(row.tobytes(), len(kinds)) for row in columns]
    first = [where.index(kind) for kind in range(len(kinds))]
    return np.array(first, np.int64), np.array(where, np.int64)


def _program(
    cell: Cell, count: Floats, wait: Floats, up: Floats, compute: Floats, heard: Floats
) -> tuple[StageProgram, float]:
    """Return what is to be solved, and the s of the stages that no choice changes."""
    at_work = working(up, compute, heard)
    some = at_work.any(axis=1)
    constant = float((count * wait.max(axis=1))[~some].sum())
    idle = ~at_work[some]
    floor = np.where(idle, wait[some], 0.0).max(axis=1)
    return StageProgram(
        cell=replace(cell, constant=cell.constant + constant),
        count=count[some],
        up=up[some],
        compute=compute[some],
        wait=wait[some],
        heard=heard[some],
        floor=floor,
        deadline=cell.deadline - constant,
    ), constant


def _start(program: StageProgram) -> Logarithms:
    """Return a point strictly within powers, clocks, band and times: half of the power, equal bandwidth."""
    cell = program.cell
    b = np.full(len(cell), 0.95 * cell.bandwidth / len(cell))
    t = cell.payload / (b * np.log1p(0.5 * cell.snr_bandwidth / cell.split(b)[0]))
    tau = np.where(cell.cycles > 0, SLACK * cell.least_compute, 1.0)
    whole = np.where(
        program.at_work, program.wait + program.up * t + program.compute * tau + program.heard / b, 0.0
    )
    longest = np.maximum(whole.max(axis=1), program.floor)
    return Logarithms(band=np.log(b), send=np.log(t), compute=np.log(tau), stages=np.log(SLACK * longest))


def _solved(interior: Interior, at: Logarithms, price: LimitValues, values: Values) -> bool:
    """Return whether a search ended within all limits and near its bound, as it does where a plan holds them."""
    if not np.isfinite(values.objective) or values.limits.flat(interior.held).max() > TIGHT:
        return False
    return sharpest(interior, at, price, values) > values.objective * (1 - DOUBTFUL)


def _outside(interior: Interior, values: Values) -> float:
    """Return by how much the limit that holds least is exceeded; below 0 within all."""
    return float(values.limits.flat(interior.held).max())


def _longer(interior: Interior, at: Logarithms) -> Logarithms:
    """Return the step to less bandwidth and longer times."""
    return Logarithms(
        band=np.full_like(at.band, -1.0),
        send=np.ones_like(at.send),
        compute=interior.free.astype(float),
        stages=np.full_like(at.stages, 2.0),
    )


def _within(interior: Interior, at: Logarithms, values: Values, limited: bool) -> tuple[Logarithms, Values]:
    """Return a point within all limits, and its values, where the search ended with a rounding error outside.

    With a little less bandwidth and as much longer times all but caps and deadline hold; and limits are convex in the
    logarithms, so that a little of the way to a point well inside those that do not hold suffices.
    """
    if (most := _outside(interior, values)) <= ROUNDED:
        return at, values
    at = at.moved(_longer(interior, at), 1.01 * most)
    values = interior.value(at)
    over = values.limits.flat(interior.held)
    out = over > ROUNDED
    if not out.any():
        return at, values
    inside = _fitting(interior.program, _start(interior.program), limited)
    there = interior.value(inside).limits.flat(interior.held)
    if there.max() > ROUNDED or there[out].max() > -TIGHT:
        return at, values
    part = float((over[out] / (over[out] - there[out])).max())
    at = at.moved(inside.moved(at, -1.0), min(1.0, 1.01 * part))
    return at, interior.value(at)


def _fitting(program: StageProgram, at: Logarithms, capped: bool) -> Logarithms:
    """Return a point that is strictly within caps and deadline, too.

    Raises:
        Impossible: there is none.
    """
    cell, deadline = program.cell, program.deadline
    if deadline <= 0:
        raise Impossible(
            f"the deadline falls short of what no plan changes, {cell.constant:.6g} s; raise it, or cut earlier"
        )
    eased = soft(program)
    interior = Interior(eased)
    first = interior.value(at).limits
    caps = (first.radio, first.joint, np.atleast_1d(first.deadline))
    at.excess = max(0.0, *(float(each[np.isfinite(each)].max(initial=0.0)) for each in caps)) + 0.5
    found, _, values = interior.solve(
        at, lambda values: values.objective < FITS and values.limits.flat(interior.held).max() <= 0
    )
    if values.objective < -TIGHT:
        found.excess = 0.0
        return found
    more = float(np.exp(values.objective))
    if capped:
        raise Impossible(
            "no round holds deadline and caps at once: all of them would have to be larger by "
            f"{100 * (more - 1):.3g} % at least; raise them, or give more bandwidth, fewer bits or an earlier cut"
        )
    short = deadline * (more - 1)
    raise Impossible(
        f"the shortest possible round takes {deadline * more + cell.constant:.6g} s: the deadline falls {short:.6g} s "
        "short; raise it, or give more bandwidth, fewer bits or an earlier cut"
    )


def sharpest(interior: Interior, at: Logarithms, price: LimitValues, values: Values) -> float:
    """Return the best lower bound that the multipliers give: the Lagrangian's own least point gives it, a few steps of
    Newton from the optimum, where its slope is rounded."""
    most = values.objective
    bound = certified(interior, at, price, values, most)
    for _ in range(SHARPER):
        if bound > most * (1 - SHARP):
            break
        down = interior.gradient(values, price)
        step = interior.newton(values, price, ENDLESS, down.moved(down, -2.0))
        if not np.isfinite(size := largest(step)):
            break
        at = at.moved(step, min(1.0, 1.0 / max(size, 1e-300)))
        values = interior.value(at)
        bound = max(bound, certified(interior, at, price, values, most))
    return bound


def certified(interior: Interior, at: Logarithms, price: LimitValues, values: Values, upper: float) -> float:
    """Return the lower bound at a point, in the interior's scale: any multipliers of 0 or more give one.

    Args:
        interior: of the program.
        at: where the Lagrangian's slope is taken.
        price: the multipliers.
        values: of ``at``.
        upper: the objective of some plan.
    """
    program, cell = interior.program, interior.program.cell
    force = interior.gradient(values, price)
    lagrangian = values.objective + float(
        (price.flat(interior.held) * values.limits.flat(interior.held)).sum()
    )
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        endless, top = _fastest(cell)
        whole = program.wait + program.up * endless + program.compute * cell.least_compute
        whole = whole + program.heard / cell.bandwidth
        shortest = np.maximum(np.where(program.at_work, whole, 0.0).max(axis=1), program.floor)
        most = program.deadline
        if cell.latency_weight > 0:
            most = min(most, upper * interior.scale / cell.latency_weight)
        longest = np.maximum(most / program.count, shortest)
        room = longest[:, None] - program.wait
        send = np.where(program.up > 0, room / program.up, np.inf).min(axis=0)
        compute = np.where(program.compute > 0, room / program.compute, np.inf).min(axis=0)
        send = np.maximum(send, endless)
        compute = np.maximum(compute, cell.least_compute)
        x = np.minimum(inverse_growth(cell.snr_bandwidth * send / cell.payload), top)
        narrow = cell.payload / (np.maximum(x, 1e-300) * send)
        lost = _least(force.band, at.band, np.log(narrow), np.log(cell.bandwidth))
        lost += _least(force.send, at.send, np.log(endless), np.log(send))
        free = interior.free
        lost += _least(
            force.compute[free], at.compute[free], np.log(cell.least_compute[free]), np.log(compute[free])
        )
        lost += _least(force.stages, at.stages, np.log(shortest), np.log(longest))
    # of any plan: the shortest stages, and what sending takes at least
    least = cell.latency_weight * float(program.count @ shortest) + float(cell.weight @ cell.least_energy)
    bound = lagrangian + lost
    return max(bound, least / interior.scale) if np.isfinite(bound) else least / interior.scale


def _least(slope: Floats, at: Floats, low: Floats, high: Floats | float) -> float:
    """Return the least of a linear function over a box, relative to its value at a point."""
    ends = np.where(slope > 0, low - at, high - at)
    return float(np.where(slope == 0, 0.0, slope * ends).sum())
