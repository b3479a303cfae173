"""The referee of every method of both problems: cost and violations of shares from the physics alone.

A method returns what it decided, as ``Shares`` of problem A or ``EdgeShares`` of problem B. Time, energy, objective and
broken limits are computed here from nothing else, so that no method marks its own work. The rate is Shannon's (1.11).
"""

from __future__ import annotations

import functools
import time as clock
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, overload

import numpy as np

from sflam.allocate.cell.problem import Problem
from sflam.allocate.cell.shares import Shares
from sflam.allocate.cell.stages import span
from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.shares import Costs, EdgeShares, Loads, add_up
from sflam.allocate.limits import Impossible, devices
from sflam.cost.energy import computing_j, idle_j, receiving_j, sending_j, serving_j
from sflam.network.channel import rate_in_nats
from sflam.network.network import Floats, Network
from sflam.plan import ALL_LOCAL, NO_DEVICES, DevicePlans, EdgeShadowPrices, Plan, ShadowPrices, Status

TOLERANCE = 1e-9  # relative violation that passes for rounding
OPTIMAL_GAP = 1e-6  # certified gap up to which a plan is called optimal
AnyProblem = Problem | EdgeProblem
AnyShares = Shares | EdgeShares
Options = ParamSpec("Options")


@dataclass(frozen=True, kw_only=True)
class SharesScore:
    """What shares cost and which limits they break. SI units; arrays [K], a whole round.

    Attributes:
        objective: what (2.1) or (3.1) minimises, with what no plan changes.
        latency: s, of the slowest device.
        energy: J, unweighted, as far as the objective counts it.
        compute: s on the device.
        transmit: s.
        compute_energy: J on the device.
        transmit_energy: J of sending, circuits included.
        receive_energy: J of receiving; 0 where the way down takes no time.
        idle_energy: J drawn over the whole round, waiting included; 0 among several servers.
        violations: name of a broken limit -> by how much, relative.
    """

    objective: float
    latency: float
    energy: float
    compute: Floats
    transmit: Floats
    compute_energy: Floats
    transmit_energy: Floats
    receive_energy: Floats
    idle_energy: Floats
    violations: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class EdgeScore(SharesScore):
    """The score of shares among several servers.

    Attributes:
        costs: the parts of the objective.
        serve: [N] s on the server.
        receive: [N] s of the way down; 0 as published.
        handing: [N] s of sending adapters up; 0 as published.
        sending_energy: [N] J of sending in the steps.
        server_energy: [N] J.
        instability: [N] AS_n, unweighted.
    """

    costs: Costs
    serve: Floats
    receive: Floats
    handing: Floats
    sending_energy: Floats
    server_energy: Floats
    instability: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What a method found.

    Attributes:
        problem: what the shares are for: with the bits, cut or gains that were chosen.
        shares: of every device.
        lower_bound: no plan has a smaller objective; -inf without a bound.
        advice: sentences for the user.
        history: the objective after each iteration; none for direct methods.
        shadow_prices: multipliers of the limits; None where the method has none.
    """

    problem: AnyProblem
    shares: AnyShares
    lower_bound: float = -np.inf
    advice: tuple[str, ...] = ()
    history: tuple[float, ...] = ()
    shadow_prices: ShadowPrices | EdgeShadowPrices | None = None


@overload
def score(problem: Problem, shares: Shares) -> SharesScore: ...
@overload
def score(problem: EdgeProblem, shares: EdgeShares) -> EdgeScore: ...
@overload
def score(problem: AnyProblem, shares: AnyShares) -> SharesScore: ...
def score(problem: Any, shares: Any) -> SharesScore:
    """Return what shares cost and which limits they break."""
    return _score_edge(problem, shares) if isinstance(problem, EdgeProblem) else _score_cell(problem, shares)


def loads(problem: EdgeProblem, shares: EdgeShares | DevicePlans) -> Loads:
    """Return what shares, or a plan's devices, take of every server, [M] each."""
    away = shares.server != ALL_LOCAL
    home, count = shares.server[away], problem.servers
    return Loads(
        users=add_up(home, np.ones(len(home)), count),
        bandwidth=add_up(home, shares.bandwidth[away], count),
        clock=add_up(home, shares.server_clock[away], count),
    )


def make_plan(method: str, found: Found, *, solve_s: float = 0.0) -> Plan:
    """Return what a method found as a plan, with the referee's score."""
    problem, shares, lower_bound = found.problem, found.shares, found.lower_bound
    scored = score(problem, shares)
    if scored.objective < lower_bound <= scored.objective * (1 + TOLERANCE):
        lower_bound = scored.objective  # equal up to rounding
    broken = tuple(
        f"{name} is exceeded by {100 * by:.3g} %{_spent(problem, scored, name)}"
        for name, by in scored.violations.items()
    )
    close = lower_bound > 0 and scored.objective <= lower_bound * (1 + OPTIMAL_GAP)
    return Plan(
        method=method,
        devices=DevicePlans(
            len(problem),
            bandwidth=shares.bandwidth,
            power=shares.power,
            clock=shares.clock,
            compute_s=scored.compute,
            transmit_s=scored.transmit,
            compute_j=scored.compute_energy,
            transmit_j=scored.transmit_energy,
            receive_j=scored.receive_energy,
            idle_j=scored.idle_energy,
            **_placement(problem, shares),
            **_sending(problem, shares, scored.transmit),
        ),
        latency=scored.latency,
        energy=scored.energy,
        objective=scored.objective,
        lower_bound=lower_bound,
        status=Status.INFEASIBLE if broken else Status.OPTIMAL if close else Status.FEASIBLE,
        advice=(*broken, *found.advice),
        history=found.history or (scored.objective,),
        solve_s=solve_s,
        shadow_prices=found.shadow_prices,
    )


def no_plan(method: str, *advice: str, solve_s: float = 0.0) -> Plan:
    """Return an empty plan with the reason as its advice."""
    return Plan(
        method=method,
        devices=NO_DEVICES,
        latency=np.inf,
        energy=np.inf,
        objective=np.inf,
        lower_bound=np.inf,
        status=Status.INFEASIBLE,
        advice=advice,
        solve_s=solve_s,
    )


def planned(method: str) -> Callable[[Callable[Options, Found | Plan]], Callable[Options, Plan]]:
    """Make a function that returns what it ``Found`` one that returns a scored plan, or why there is none."""

    def wrap(solve: Callable[Options, Found | Plan]) -> Callable[Options, Plan]:
        @functools.wraps(solve)
        def plan(*args: Options.args, **options: Options.kwargs) -> Plan:
            began = clock.perf_counter()
            try:
                found = solve(*args, **options)
            except Impossible as impossible:
                return no_plan(method, *impossible.advice, solve_s=clock.perf_counter() - began)
            spent = clock.perf_counter() - began
            return found if isinstance(found, Plan) else make_plan(method, found, solve_s=spent)

        return plan

    return wrap


def _placement(problem: AnyProblem, shares: AnyShares) -> dict[str, Any]:
    """Return the columns of a plan that give the place of every device."""
    if isinstance(shares, EdgeShares):
        assert isinstance(problem, EdgeProblem)
        return {
            "cut": shares.split,
            "bits": problem.bits,
            "server": shares.server,
            "server_clock": shares.server_clock,
            "tuned": 0 if problem.tuned is None else problem.tuned,
        }
    assert isinstance(problem, Problem)
    return {
        "cut": problem.each("cut"),
        "bits": problem.each("bits"),
        "bits_down": problem.each("bits_down"),
        "server": problem.server,
        "subchannels": 0 if shares.subchannels is None else shares.subchannels,
        "airtime": shares.airtime,
    }


def _sending(problem: AnyProblem, shares: AnyShares, transmit: Floats) -> dict[str, Any]:
    """Return the columns of what a round sends up, and how fast; 0 for users that send nothing."""
    sends = (shares.server != ALL_LOCAL) if isinstance(shares, EdgeShares) else np.full(len(problem), True)
    bits = np.where(sends, problem.payload / np.log(2), 0.0)
    rate = np.divide(bits, transmit, out=np.zeros(len(problem)), where=transmit > 0)
    return {"payload_bits": bits, "rate_up": rate}


def _spent(problem: AnyProblem, scored: SharesScore, name: str) -> str:
    """Return what shares take of a limit on time or energy, as the end of a sentence."""
    if name == "deadline":
        return f": these shares take {scored.latency:.6g} s a round"
    sent, computed = scored.transmit_energy, scored.compute_energy
    whole = sent + computed + scored.receive_energy + scored.idle_energy
    joules = {"radio_cap": sent, "compute_cap": computed, "energy_cap": whole}.get(name)
    if joules is None or not isinstance(problem, Problem):
        return ""
    worst = int(np.argmax(_over(joules, problem.each(name))))
    return (
        f": {devices(problem.network, np.arange(len(problem)) == worst)} spends {joules[worst]:.4g} J a round"
    )


def _score_cell(problem: Problem, shares: Shares) -> SharesScore:
    network, lam = problem.network, problem.latency_weight
    b, p, f = (np.asarray(array, float) for array in (shares.bandwidth, shares.power, shares.clock))
    airtime = np.broadcast_to(np.asarray(shares.airtime, float), (len(problem),))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        sending = problem.payload / rate_in_nats(b, p, network.gain[problem.server], network.noise)
        transmit = sending / airtime
        compute = problem.cycles / f
        transmit_energy = sending_j(p, sending, network.amplifier_efficiency, network.circuit_power)
        compute_energy = computing_j(problem.cycles, f, network.kappa)
        # slots for the way down
        delay = problem.each("delay") + problem.each("receiving") * (1 / airtime - 1)
    latency = float(problem.base_s + span(problem, problem.each("local_steps") * delay, compute, transmit))
    idle = idle_j(network.static_power, latency)
    heard = problem.received_j
    counted = transmit_energy + (compute_energy if problem.choose_clocks else 0.0) + idle + heard
    whole = transmit_energy + compute_energy + idle + heard
    weighted = float(network.energy_weight @ counted) + problem.base_j
    need = problem.at_cut("device_memory")
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = {
            "bandwidth": (b * airtime).sum() / network.shared_band[problem.server] - 1,
            "power": (p / network.max_power - 1).max(),
            "full power": _short_of_full(network, p),
            "whole channel": _part_of_channel(problem, b),
            "clock": (f / network.max_clock - 1).max(),
            "deadline": latency / problem.deadline - 1,
            "radio_cap": _over(transmit_energy, problem.each("radio_cap")).max(),
            "compute_cap": _over(compute_energy, problem.each("compute_cap")).max(),
            "energy_cap": _over(whole, problem.each("energy_cap")).max(),
            "memory": _over(need, network.memory).max(),
            "not a positive number": 0.0 if ((b > 0) & (p > 0) & (f > 0) & (airtime > 0)).all() else np.inf,
        }
    return SharesScore(
        objective=problem.rounds * (lam * latency + (1 - lam) * weighted),
        latency=latency,
        energy=float(counted.sum() + problem.base_j),
        compute=compute,
        transmit=transmit,
        compute_energy=compute_energy,
        transmit_energy=transmit_energy,
        receive_energy=heard,
        idle_energy=idle,
        violations=_beyond(excess),
    )


def _score_edge(problem: EdgeProblem, shares: EdgeShares) -> EdgeScore:
    network, users = problem.network, np.arange(len(problem))
    m, alpha = shares.server, shares.split
    away = m != ALL_LOCAL
    home = np.where(away, m, 0)
    b, p, f, g = shares.bandwidth, shares.power, shares.clock, shares.server_clock
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ahead = rate_in_nats(b, p, network.gain[home, users], network.noise)
        send = np.where(away, problem.payload / ahead, 0.0)
        compute = problem.own_cycles[users, alpha] / f
        work = problem.served_cycles(home, users, alpha)
        serve = np.where(away, work / g, 0.0)
        serve_j = np.where(away, serving_j(work, g, network.server_kappa[home]), 0.0)
    compute_j = computing_j(problem.own_cycles[users, alpha], f, network.kappa, network.static_power)
    radiated = sending_j(p, send, network.amplifier_efficiency, network.circuit_power)
    send_j = np.where(away, radiated, 0.0)
    receive, handing = problem.received_s[users, alpha], problem.handed_s[home, users, alpha]
    receive_j = receiving_j(network.receive_power, receive)
    handing_j = sending_j(network.max_power, handing, network.amplifier_efficiency, network.circuit_power)
    ends = compute + send + serve + receive
    # Users hand over their adapters one after another, and servers average them then.
    to = np.where(away, m, network.gain.argmax(axis=0))
    after = float(add_up(to, handing, problem.servers).max())
    aggregation = 0.0 if problem.books is None else problem.books.aggregation_s
    shaky = problem.instability[users, alpha]
    load = loads(problem, shares)
    positive = (f > 0).all() and ((b > 0) & (p > 0) & (g > 0))[away].all()
    need = np.zeros(len(problem)) if problem.memory is None else problem.memory[users, alpha]
    whole = away == (alpha < problem.layers)
    excess = {
        "bandwidth": (load.bandwidth / network.bandwidth - 1).max(),
        "server clock": (load.clock / network.server_clock - 1).max(),
        "power": (p / network.max_power - 1).max(),
        "clock": (f / network.max_clock - 1).max(),
        "memory": (need / network.memory - 1).max(),
        "reach": 0.0 if problem.reachable[home, users][away].all() else np.inf,
        "split": 0.0 if (problem.allowed[users, alpha] & whole).all() else np.inf,
        "not a positive number": 0.0 if positive else np.inf,
    }
    costs = Costs(
        delay=problem.time_weight * float((ends + handing + aggregation).sum()),
        energy=float(problem.energy_price @ (compute_j + send_j + handing_j + receive_j))
        + problem.energy_weight * float(serve_j.sum()),
        instability=problem.stability_weight * float(shaky.sum()) if problem.stability_weight else 0.0,
        fit=problem.fit_weight * float(problem.misfit.sum()),
    )
    return EdgeScore(
        objective=costs.total,
        latency=float(ends.max()) + after + aggregation,
        energy=float((compute_j + send_j + handing_j + receive_j + serve_j).sum()),
        costs=costs,
        compute=compute,
        transmit=send,
        serve=serve,
        compute_energy=compute_j,
        transmit_energy=send_j + handing_j,
        sending_energy=send_j,
        receive_energy=receive_j,
        idle_energy=np.zeros(len(problem)),
        receive=receive,
        handing=handing,
        server_energy=serve_j,
        instability=shaky,
        violations=_beyond(excess),
    )


def _short_of_full(network: Network, power: Floats) -> float:
    """Return by how much devices that know full power alone are below it, where they share time."""
    known = (network.full_power > 0) & (network.airtime > 0)
    return float((1 - power / network.max_power)[known].max(initial=0.0))


def _part_of_channel(problem: Problem, bandwidth: Floats) -> float:
    """Return by how much what devices send over is not the whole channel, where they share its time."""
    if not problem.network.airtime:
        return 0.0
    return float(np.abs(bandwidth / problem.network.bandwidth[problem.server] - 1).max())


def _over(taken: Floats, limit: Floats) -> Floats:
    """Return by how much limits are exceeded, relative; 0 where they hold, as a limit of nothing does for nothing."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(taken <= limit, 0.0, taken / limit - 1)


def _beyond(excess: dict[str, Any]) -> dict[str, float]:
    """Return the limits that are broken by more than rounding; NaN breaks its limit."""
    return {name: float(by) for name, by in excess.items() if not by <= TOLERANCE}
