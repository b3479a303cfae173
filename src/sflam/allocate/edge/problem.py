"""Problem B (3.1): users among several servers. Who trains how many layers itself, at which server the rest, with what.

    min  sum_n w_t (alpha C_n / f_n + t_n + (Y - alpha) C'_nm / f_nm)
             + w_e (w_n alpha (kappa_n f_n^2 + P0_n / f_n) C_n + w_n p_n t_n + (Y - alpha) kappa_m f_nm^2 C'_nm)
             + w_s AS_n(alpha)                                                                               (3.1)
    s.t. one server m each, or alpha = Y: nothing is sent; p <= p_max, f_n <= f_max,
         bandwidths of a server share B_m, clocks of a server share F_m, splits fit the users' memory

over the server, the split alpha (layers on the user), bandwidth b, power p, and both clocks. No embedding, head or way
back is charged. A method is whatever returns ``EdgeShares``; ``EdgeProblem.plan`` recomputes the cost from them with
the physics alone.

Four differences from the problem as printed in arXiv 2409.20247, and how to get the printed form:

    the delay t_n of sending counts     always: without, p t falls for ever as p -> 0, and no plan attains the optimum
    AS is finite where all is tuned     ``eigenvalue=0``: AS(Y) is infinite, so that alpha = Y is never chosen
    splits are enumerated               method ``fractional`` relaxes and rounds them
    base weights are frozen             ``full_training=True`` of ``layer_flops``: three forwards
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sflam.allocate.edge.limits import wrong_edge
from sflam.allocate.edge.shares import Costs, EdgeScore, EdgeShares, Loads, add_up
from sflam.errors import AllocationError
from sflam.network.network import Floats, Network
from sflam.plan import ALL_LOCAL, DevicePlans, Plan, Status
from sflam.workload import Workload

Integers = NDArray[np.int64]
TOLERANCE = 1e-9  # relative violation that passes for rounding
OPTIMAL_GAP = 1e-6  # certified gap up to which a plan is called optimal


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeProblem:
    """Users, servers, and what is asked for. N users, M servers; SI units.

    Attributes:
        network: users (its devices) and servers; a gain of 0 puts a server out of a user's reach.
        layers: Y.
        layer_flops: [N] FLOP of one layer's training step on a user's mini-batch.
        payload: [N] nats of a mini-batch's activations, ln 2 times its bits.
        samples: [N] samples of a user's data, for its instability.
        memory: [N, Y + 1] bytes that a user needs at every split; None for none.
        bits: per activation value, for the record.
        time_weight: w_t, 1/s; positive.
        energy_weight: w_e, 1/J; the network's w_n multiply it for the users' own energy.
        stability_weight: w_s.
        lipschitz: rho of the loss (5.2).
        eigenvalue: Lambda_min of the empirical risk (5.2); 0 is the printed form.
        penalty: c of (5.2).
        least_split: smallest alpha, from 1.
        most_split: largest alpha; None is Y.
        transmit_delay: must be true; see above.

    Raises:
        AllocationError: numbers with which no plan can be: a user without a server in reach, splits beyond the model
            or the memory, zero or NaN, ...
    """

    network: Network
    layers: int
    layer_flops: Floats
    payload: Floats
    samples: ArrayLike
    memory: Floats | None = None
    bits: int = 8
    time_weight: float = 1.0
    energy_weight: float = 1.0
    stability_weight: float = 200.0
    lipschitz: float = 1.0
    eigenvalue: float = 0.1
    penalty: float = 0.5
    least_split: int = 1
    most_split: int | None = None
    transmit_delay: bool = True

    def __post_init__(self) -> None:
        if found := wrong_edge(self):
            raise AllocationError("; ".join(found))

    def __len__(self) -> int:
        return len(self.network)

    @property
    def servers(self) -> int:
        """M."""
        return len(self.network.bandwidth)

    def change(self, **changes: Any) -> Self:
        """Return the problem with other attributes."""
        return replace(self, **changes)

    @cached_property
    def cycles(self) -> Floats:
        """[N] cycles of one layer on the user, C_n."""
        cycles: Floats = self.layer_flops / self.network.flops_per_cycle
        return cycles

    @cached_property
    def server_cycles(self) -> Floats:
        """[M, N] cycles of one layer on a server, C'_nm."""
        cycles: Floats = self.layer_flops / self.network.server_flops_per_cycle[:, None]
        return cycles

    @cached_property
    def noise(self) -> Floats:
        """[M, N] J of a nat at infinite bandwidth, G = N0 / g; inf out of reach."""
        with np.errstate(divide="ignore"):
            ratio: Floats = self.network.noise / self.network.gain
        return ratio

    @cached_property
    def reachable(self) -> NDArray[np.bool_]:
        """[M, N] whether a server hears a user."""
        heard: NDArray[np.bool_] = self.network.gain > 0
        return heard

    @cached_property
    def energy_price(self) -> Floats:
        """[N] w_e w_n, 1/J: what a joule of the user costs."""
        price: Floats = self.energy_weight * self.network.energy_weight
        return price

    @cached_property
    def clock(self) -> Floats:
        """[N] Hz, the user's best clock whatever its split: min(f_max, ((w_t + W P0) / (2 W kappa))^(1/3)) (3.5)."""
        network, price = self.network, self.energy_price
        with np.errstate(divide="ignore"):
            best = np.cbrt((self.time_weight + price * network.static_power) / (2 * price * network.kappa))
        return np.minimum(network.max_clock, best)

    @cached_property
    def instability(self) -> Floats:
        """[N, Y + 1] AS_n(alpha) <= 2 rho^2 / (n (Lambda_min + 2 c (1 - alpha / Y))) (5.2), inf where that is 0."""
        tuned = np.arange(self.layers + 1) / self.layers
        convexity = self.eigenvalue + 2 * self.penalty * (1 - tuned)
        with np.errstate(divide="ignore"):
            bound: Floats = 2 * self.lipschitz**2 / (np.asarray(self.samples, float)[:, None] * convexity)
        return bound

    @cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """[N, Y + 1] splits within the range and the users' memory."""
        splits = np.arange(self.layers + 1)
        most = self.layers if self.most_split is None else self.most_split
        range_ = (splits >= self.least_split) & (splits <= most)
        fits = True if self.memory is None else self.memory <= self.network.memory[:, None]
        allowed: NDArray[np.bool_] = np.broadcast_to(range_ & fits, (len(self), self.layers + 1))
        return allowed

    @cached_property
    def local(self) -> Floats:
        """[N, Y + 1] cost of the user's own layers and of its instability at every split; inf where not allowed."""
        network, f = self.network, self.clock
        joules = network.kappa * f**2 + network.static_power / f  # per cycle
        layer = self.cycles * (self.time_weight / f + self.energy_price * joules)
        with np.errstate(invalid="ignore"):
            shaky = self.stability_weight * self.instability if self.stability_weight else 0.0
        cost: Floats = np.arange(self.layers + 1) * layer[:, None] + shaky
        return np.where(self.allowed, cost, np.inf)

    def score(self, shares: EdgeShares) -> EdgeScore:
        """Return what shares cost and which limits they break. The rate is Shannon's (1.11)."""
        network, users = self.network, np.arange(len(self))
        m, alpha = shares.server, shares.split
        away = m != ALL_LOCAL
        home = np.where(away, m, 0)
        b, p, f, g = shares.bandwidth, shares.power, shares.clock, shares.server_clock
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            x = np.log1p(p * network.gain[home, users] / (network.noise * b))
            send = np.where(away, self.payload / (b * x), 0.0)
            compute = alpha * self.cycles / f
            work = (self.layers - alpha) * self.server_cycles[home, users]
            serve = np.where(away, work / g, 0.0)
            serve_j = np.where(away, network.server_kappa[home] * g**2 * work, 0.0)
        compute_j = alpha * self.cycles * (network.kappa * f**2 + network.static_power / f)
        send_j = np.where(away, p * send, 0.0)
        shaky = self.instability[users, alpha]
        loads = self._loads(home, away, b, g)
        positive = (f > 0).all() and ((b > 0) & (p > 0) & (g > 0))[away].all()
        need = np.zeros(len(self)) if self.memory is None else self.memory[users, alpha]
        whole = away == (alpha < self.layers)
        excess = {
            "bandwidth": (loads.bandwidth / network.bandwidth - 1).max(),
            "server clock": (loads.clock / network.server_clock - 1).max(),
            "power": (p / network.max_power - 1).max(),
            "clock": (f / network.max_clock - 1).max(),
            "memory": (need / network.memory - 1).max(),
            "reach": 0.0 if self.reachable[home, users][away].all() else np.inf,
            "split": 0.0 if (self.allowed[users, alpha] & whole).all() else np.inf,
            "not a positive number": 0.0 if positive else np.inf,
        }
        costs = Costs(
            delay=self.time_weight * float((compute + send + serve).sum()),
            energy=float(self.energy_price @ (compute_j + send_j))
            + self.energy_weight * float(serve_j.sum()),
            instability=self.stability_weight * float(shaky.sum()) if self.stability_weight else 0.0,
        )
        return EdgeScore(
            objective=costs.total,
            costs=costs,
            compute=compute,
            transmit=send,
            serve=serve,
            compute_energy=compute_j,
            transmit_energy=send_j,
            server_energy=serve_j,
            instability=shaky,
            violations={name: float(by) for name, by in excess.items() if not by <= TOLERANCE},
        )

    def objective_of(self, shares: EdgeShares) -> float:
        """Return (3.1) for shares, whatever limits they break."""
        return self.score(shares).objective

    def violations(self, shares: EdgeShares) -> dict[str, float]:
        """Return the limits that shares break: name -> by how much, relative."""
        return self.score(shares).violations

    def loads(self, plan: Plan) -> Loads:
        """Return what a plan asks of every server, [M] each."""
        told = plan.devices
        away = told.server != ALL_LOCAL
        return self._loads(np.where(away, told.server, 0), away, told.bandwidth, told.server_clock)

    def _loads(self, home: Integers, away: NDArray[np.bool_], bandwidth: Floats, clock: Floats) -> Loads:
        def add(values: Floats) -> Floats:
            return add_up(home[away], values[away], self.servers)

        return Loads(users=add(np.ones(len(self))), bandwidth=add(bandwidth), clock=add(clock))

    def plan(
        self,
        method: str,
        shares: EdgeShares,
        *,
        lower_bound: float = -np.inf,
        advice: tuple[str, ...] = (),
        history: tuple[float, ...] = (),
        solve_s: float = 0.0,
    ) -> Plan:
        """Return shares as a plan with the referee's score.

        Its latency is the slowest user's, its energy all joules of users and servers, unweighted.
        """
        score = self.score(shares)
        if score.objective < lower_bound <= score.objective * (1 + TOLERANCE):
            lower_bound = score.objective  # equal up to rounding
        broken = tuple(f"{name} is exceeded by {100 * by:.3g} %" for name, by in score.violations.items())
        close = lower_bound > 0 and score.objective <= lower_bound * (1 + OPTIMAL_GAP)
        return Plan(
            method=method,
            devices=DevicePlans(
                len(self),
                cut=shares.split,
                bits=self.bits,
                bandwidth=shares.bandwidth,
                power=shares.power,
                clock=shares.clock,
                server=shares.server,
                server_clock=shares.server_clock,
                compute_s=score.compute,
                transmit_s=score.transmit,
                compute_j=score.compute_energy,
                transmit_j=score.transmit_energy,
            ),
            latency=float((score.compute + score.transmit + score.serve).max()),
            energy=float((score.compute_energy + score.transmit_energy + score.server_energy).sum()),
            objective=score.objective,
            lower_bound=lower_bound,
            status=Status.INFEASIBLE if broken else Status.OPTIMAL if close else Status.FEASIBLE,
            advice=(*broken, *advice),
            history=history or (score.objective,),
            solve_s=solve_s,
        )


def layer_flops(workload: Workload, *, full_training: bool = False) -> float:
    """Return the FLOP of one inner layer's training step on a mini-batch: (1.1) + (1.2) + (1.3).

    Args:
        workload: of equal layers.
        full_training: three forwards instead, as printed in 2409.20247; without adapters that is (1.1) + (1.4).
    """
    forward = (workload.device_forward[-1] - workload.device_forward[0]) / workload.blocks
    if full_training:
        return 3 * forward
    none, first, *_, last = workload.device_backward[:2] + workload.device_backward[-1:]
    inner = (last - first) / (workload.blocks - 1) if workload.blocks > 1 else first - none
    return forward + inner


def edge_problem(
    network: Network,
    workloads: Sequence[Workload],
    samples: ArrayLike,
    *,
    bits: int = 8,
    steps: ArrayLike = 1.0,
    full_training: bool = False,
    **asked: Any,
) -> EdgeProblem:
    """Return the problem of users who fine-tune with these workloads, one per user, all of one depth.

    Args:
        network: users and servers.
        workloads: [N].
        samples: [N], or one number for all.
        bits: per activation value.
        steps: [N] mini-batches of a round, or one number for all.
        full_training: all weights of a layer are trained; see ``layer_flops``.
        asked: further attributes of ``EdgeProblem``.
    """
    assert len(workloads) == len(network) and len({one.blocks for one in workloads}) == 1
    count = np.asarray(steps, float)
    return EdgeProblem(
        network=network,
        layers=workloads[0].blocks,
        layer_flops=np.array([layer_flops(one, full_training=full_training) for one in workloads]) * count,
        payload=np.array([one.up_bits(bits) for one in workloads]) * np.log(2) * count,
        samples=np.broadcast_to(np.asarray(samples, float), (len(network),)),
        memory=np.array([one.device_memory for one in workloads]),
        bits=bits,
        **asked,
    )
