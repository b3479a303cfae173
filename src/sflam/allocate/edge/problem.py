"""Problem B (3.1): users among several servers. Layers on a user, its server, and its shares.

    min  sum_n w_t (alpha C_n / f_n + t_n + (Y - alpha) C'_nm / f_nm)
             + w_e (w_n alpha (kappa_n f_n^2 + P0_n / f_n) C_n + w_n (p_n / eta_n + P_c) t_n
                    + (Y - alpha) kappa_m f_nm^2 C'_nm)
             + w_s AS_n(alpha)                                                                               (3.1)
    s.t. one server m each, or alpha = Y: nothing is sent; p <= p_max, f_n <= f_max,
         bandwidths of a server share B_m, clocks of a server share F_m, splits fit the users' memory

over the server, the split alpha (layers on the user), bandwidth b, power p, and both clocks. No embedding, head or way
back is charged. A method is a function that returns ``EdgeShares``; the referee computes their cost.

Four differences from the problem as printed in arXiv 2409.20247, and how to get the printed form:

    the delay t_n of sending counts     always: without, p t falls as p -> 0, and no plan attains the optimum
    AS is finite where all is tuned     ``eigenvalue=0``: AS(Y) is infinite, so that alpha = Y is never chosen
    splits are enumerated               method ``fractional`` relaxes and rounds them
    base weights are frozen             ``full_training=True`` of ``layer_flops``: three forwards
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sflam.allocate.limits import devices, wrong_numbers, wrong_values
from sflam.cost.energy import computing_j
from sflam.errors import AllocationError
from sflam.network.network import Floats, Network
from sflam.units import human_bytes
from sflam.workload import Workload


@dataclass(frozen=True, kw_only=True, eq=False)
class TunedChoices:
    """What users cost with 1, 2, ... Y first layers tuned, where plans choose how many.

    Attributes:
        layer_flops: [Y, N] FLOP of one layer's training step, the mean over layers.
        memory: [Y, N, Y + 1] bytes at every split; None for none.
        least: fewest layers to tune.
    """

    layer_flops: Floats
    memory: Floats | None = None
    least: int = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeProblem:
    """Users, servers, limits and weights. N users, M servers; SI units.

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
        tuned: [N] first layers that each user tunes, which its instability then counts; None counts those of its split,
            as published, though all are trained.
        fit: [Y] loss that training reaches with 1, 2, ... layers tuned; none where that is not known.
        fit_weight: w_f of it.
        choices: what users cost with other numbers of tuned layers, where plans choose them (``allocate/edge/tuned``).

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
    tuned: ArrayLike | None = None
    fit: tuple[float, ...] = ()
    fit_weight: float = 0.0
    choices: TunedChoices | None = None

    def __post_init__(self) -> None:
        if found := self._wrong_network() or self._wrong_request() or self._wrong_splits():
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
        return self.layer_flops / self.network.flops_per_cycle

    @cached_property
    def server_cycles(self) -> Floats:
        """[M, N] cycles of one layer on a server, C'_nm."""
        return self.layer_flops / self.network.server_flops_per_cycle[:, None]

    @cached_property
    def noise(self) -> Floats:
        """[M, N] J that a nat at infinite bandwidth takes from a supply, G = N0 / (eta g); inf out of reach."""
        with np.errstate(divide="ignore"):
            ratio: Floats = self.network.noise / self.network.gain / self.network.amplifier_efficiency
        return ratio

    @cached_property
    def reachable(self) -> NDArray[np.bool_]:
        """[M, N] whether a user is within a server's reach."""
        return self.network.gain > 0

    @cached_property
    def energy_price(self) -> Floats:
        """[N] w_e w_n, 1/J: what a joule of the user costs."""
        return self.energy_weight * self.network.energy_weight

    @cached_property
    def clock(self) -> Floats:
        """[N] Hz, the user's best clock at any split: min(f_max, ((w_t + W P0) / (2 W kappa))^(1/3)) (3.5)."""
        network, price = self.network, self.energy_price
        with np.errstate(divide="ignore"):
            best = np.cbrt((self.time_weight + price * network.static_power) / (2 * price * network.kappa))
        return np.minimum(network.max_clock, best)

    @cached_property
    def instability(self) -> Floats:
        """[N, Y + 1] AS_n(p) <= 2 rho^2 / (n (Lambda_min + 2 c (1 - p))) (5.2), inf where that is 0.

        p is what is tuned of Y layers, at every split alike; as published it is alpha / Y.
        """
        if self.tuned is None:
            tuned = np.arange(self.layers + 1) / self.layers
        else:
            own = np.broadcast_to(np.asarray(self.tuned, float), (len(self),))
            tuned = np.repeat(own[:, None], self.layers + 1, axis=1) / self.layers
        convexity = self.eigenvalue + 2 * self.penalty * (1 - tuned)
        with np.errstate(divide="ignore"):
            bound: Floats = 2 * self.lipschitz**2 / (np.asarray(self.samples, float)[:, None] * convexity)
        return bound

    @cached_property
    def misfit(self) -> Floats:
        """[N] the loss that training reaches with what each user tunes; 0 where that is not known."""
        if not self.fit or self.tuned is None:
            return np.zeros(len(self))
        own = np.broadcast_to(np.asarray(self.tuned, np.int64), (len(self),))
        return np.asarray(self.fit, float)[own - 1]

    @property
    def risk(self) -> Floats:
        """[N] w_s AS_n + w_f loss of what each user tunes."""
        shaky = self.stability_weight * self.instability[:, 0] if self.stability_weight else 0.0
        found: Floats = shaky + self.fit_weight * self.misfit
        return found

    def at(self, tuned: ArrayLike) -> Self:
        """Return the problem of users that tune so many first layers, [N]."""
        assert self.choices is not None
        own = np.broadcast_to(np.asarray(tuned, np.int64), (len(self),))
        users, memory = np.arange(len(self)), self.choices.memory
        return replace(
            self,
            tuned=own,
            layer_flops=self.choices.layer_flops[own - 1, users],
            memory=None if memory is None else memory[own - 1, users],
        )

    @cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """[N, Y + 1] splits within the range and the users' memory."""
        splits = np.arange(self.layers + 1)
        most = self.layers if self.most_split is None else self.most_split
        range_ = (splits >= self.least_split) & (splits <= most)
        fits = True if self.memory is None else self.memory <= self.network.memory[:, None]
        return np.broadcast_to(range_ & fits, (len(self), self.layers + 1))

    @cached_property
    def local(self) -> Floats:
        """[N, Y + 1] cost of the user's own layers and of its instability at every split; inf where not allowed."""
        network, f = self.network, self.clock
        joules = computing_j(np.ones(len(self)), f, network.kappa, network.static_power)  # per cycle
        layer = self.cycles * (self.time_weight / f + self.energy_price * joules)
        with np.errstate(invalid="ignore"):
            shaky = self.stability_weight * self.instability if self.stability_weight else 0.0
        shaky = shaky + self.fit_weight * self.misfit[:, None]
        cost: Floats = np.arange(self.layers + 1) * layer[:, None] + shaky
        return np.where(self.allowed, cost, np.inf)

    def _wrong_network(self) -> list[str]:
        network = self.network
        if not len(network) or not self.servers:
            return [
                f"the network has {len(network)} users and {self.servers} servers; give at least one of each"
            ]
        found = []
        bad = np.asarray(~((network.gain >= 0) & np.isfinite(network.gain)).all(axis=0))
        if bad.any():
            found.append(f"gain of {devices(network, bad)} is not a number of 0 or more at every server")
        elif (deaf := np.asarray(~(network.gain > 0).any(axis=0))).any():
            found.append(
                f"{devices(network, deaf)} can be reached by no server (every gain is 0); move a server or leave it out"
            )
        else:
            found += wrong_values("gain", network.gain.max(axis=0), partial(devices, network))
        return found + wrong_numbers(network)

    def _wrong_request(self) -> list[str]:
        found = []
        for name in ("layer_flops", "payload", "samples"):
            values = np.asarray(getattr(self, name), float)
            if values.shape != (len(self),):
                found.append(f"{name} has shape {list(values.shape)}; give one per user ({len(self)})")
            else:
                found += wrong_values(name, values, partial(devices, self.network))
        if self.memory is not None and self.memory.shape != (len(self), self.layers + 1):
            found.append(f"memory has shape {list(self.memory.shape)}; give [users, layers + 1]")
        if not 0 < self.time_weight < np.inf:
            found.append(
                f"time_weight is {self.time_weight}; it must be positive: without it, an endless upload costs least"
            )
        else:
            found += wrong_values("time_weight", np.array(self.time_weight))
        if self.fit and len(self.fit) != self.layers:
            found.append(f"fit has {len(self.fit)} losses; give one for 1, 2, ... {self.layers} tuned layers")
        for name in ("energy_weight", "stability_weight", "fit_weight", "eigenvalue", "penalty", "lipschitz"):
            found += wrong_values(name, np.array([getattr(self, name)]), positive=name == "lipschitz")
        if not self.transmit_delay:
            found.append(
                "transmit_delay is off, as printed in 2409.20247: the energy of sending then only falls as the "
                "power goes to 0, and no plan attains the optimum; leave it on"
            )
        return found

    def _wrong_splits(self) -> list[str]:
        if self.layers < 1:
            return [f"the model has {self.layers} layers; it needs at least 1"]
        most = self.layers if self.most_split is None else self.most_split
        if not 1 <= self.least_split <= most <= self.layers:
            return [
                f"splits {self.least_split} to {most} of a model with {self.layers} layers; splits are 1 to "
                f"{self.layers}, the smallest first"
            ]
        full = np.asarray(~self.allowed.any(axis=1))
        if full.any() and self.memory is not None:
            index = int(np.argmax(full))
            need = human_bytes(float(self.memory[index, self.least_split]))
            have = human_bytes(float(self.network.memory[index]))
            return [
                f"no split fits the memory of {devices(self.network, full)}: {self.least_split} layers need {need}, "
                f"its limit is {have}; allow fewer layers or give it more memory"
            ]
        if self.eigenvalue == 0 and self.stability_weight and self.least_split == self.layers:
            return [
                "eigenvalue is 0 and every split is the whole model, whose bound is then infinite; allow fewer layers"
            ]
        return []


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
    at_tuned: Sequence[Sequence[Workload]] = (),
    least_tuned: int = 1,
    **attributes: Any,
) -> EdgeProblem:
    """Return the problem of users who fine-tune with these workloads, one per user, all of one depth.

    Args:
        network: users and servers.
        workloads: [N].
        samples: [N], or one number for all.
        bits: per activation value.
        steps: [N] mini-batches of a round, or one number for all.
        full_training: all weights of a layer are trained; see ``layer_flops``.
        at_tuned: [Y] the same with 1, 2, ... Y first layers tuned, where plans choose how many.
        least_tuned: fewest of them.
        attributes: further attributes of ``EdgeProblem``.
    """
    depths = sorted({workload.blocks for workload in workloads})
    if len(workloads) != len(network) or len(depths) != 1:
        raise AllocationError(
            f"{len(workloads)} workloads of {depths} blocks for {len(network)} users; give one each, all of one depth"
        )
    count = np.asarray(steps, float)
    if at_tuned:
        attributes["choices"] = TunedChoices(
            layer_flops=np.array([[layer_flops(one) for one in each] for each in at_tuned]) * count,
            memory=np.array([_memory(each) for each in at_tuned]),
            least=least_tuned,
        )
    flops = np.array([layer_flops(workload, full_training=full_training) for workload in workloads])
    return EdgeProblem(
        network=network,
        layers=workloads[0].blocks,
        layer_flops=flops * count,
        payload=np.array([workload.up_bits(bits) for workload in workloads]) * np.log(2) * count,
        samples=np.broadcast_to(np.asarray(samples, float), (len(network),)),
        memory=_memory(workloads),
        bits=bits,
        **attributes,
    )


def _memory(workloads: Sequence[Workload]) -> Floats:
    """Return [N, Y + 1] the bytes that users need at every split, the last of which is without a server."""
    return np.array([(*workload.device_memory[:-1], workload.whole_memory) for workload in workloads])
