"""Problem B (3.1): users among several servers. Layers on a user, its server, and its shares.

    min  sum_n w_t (alpha C_n / f_n + t_n + (Y - alpha) C'_nm / f_nm)
             + w_e (w_n alpha (kappa_n f_n^2 + P0_n / f_n) C_n + w_n (p_n / eta_n + P_c) t_n
                    + (Y - alpha) kappa_m f_nm^2 C'_nm)
             + w_s AS_n(alpha)                                                                               (3.1)
    s.t. one server m each, or alpha = Y: nothing is sent; p <= p_max, f_n <= f_max,
         bandwidths of a server share B_m, clocks of a server share F_m, splits fit the users' memory

over the server, the split alpha (layers on the user), bandwidth b, power p, and both clocks. No embedding, head, way
back or adapter is charged unless ``books`` says what they take (``allocate/edge/books``). A method is a function that
returns ``EdgeShares``; the referee computes their cost.

Four differences from the problem as printed in arXiv 2409.20247, and how to get the printed form:

    the delay t_n of sending counts     always: without, p t falls as p -> 0, and no plan attains the optimum
    AS is finite where all is tuned     ``eigenvalue=0``: AS(Y) is infinite, so that alpha = Y is never chosen
    splits are enumerated               method ``fractional`` relaxes and rounds them
    base weights are frozen             ``full_training=True`` of ``statement.layer_flops``: three forwards
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sflam.allocate.edge.books import EdgeBooks, chosen
from sflam.allocate.edge.shares import Integers
from sflam.allocate.limits import devices, wrong_numbers, wrong_values
from sflam.cost.energy import computing_j, sending_j
from sflam.errors import AllocationError
from sflam.network.channel import rate
from sflam.network.network import Floats, Network
from sflam.units import human_bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class TunedChoices:
    """What users cost with 1, 2, ... Y first layers tuned, where plans choose how many.

    Attributes:
        layer_flops: [Y, N] FLOP of one layer's training step, the mean over layers.
        memory: [Y, N, Y + 1] bytes at every split; None for none.
        least: fewest layers to tune.
        books: [Y] of each; none as published.
    """

    layer_flops: Floats
    memory: Floats | None = None
    least: int = 1
    books: tuple[EdgeBooks, ...] = ()


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
        books: what a round takes beside equal layers and activations; None as published.

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
    books: EdgeBooks | None = None

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
            books=chosen(self.choices.books, own - 1) if self.choices.books else None,
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
    def own_cycles(self) -> Floats:
        """[N, Y + 1] cycles on the user at every split."""
        if self.books is not None:
            cycles: Floats = self.books.own_flops / self.network.flops_per_cycle[:, None]
            return cycles
        return np.arange(self.layers + 1) * self.cycles[:, None]

    def served_cycles(self, server: Any, user: Any, split: Any) -> Floats:
        """Return the cycles that servers do for users at splits; indices of one shape, or that broadcast."""
        cycles: Floats
        if self.books is not None:
            cycles = self.books.server_flops[user, split] / self.network.server_flops_per_cycle[server]
        else:
            cycles = (self.layers - split) * self.server_cycles[server, user]
        return cycles

    @cached_property
    def received_s(self) -> Floats:
        """[N, Y + 1] s of the way down in a round: answers, and adapters before them."""
        if self.books is None:
            return np.zeros((len(self), self.layers + 1))
        bits = self.books.down_bits + self.books.adapters_down
        seconds: Floats = bits / self.books.down_rate[:, None]
        return seconds

    @cached_property
    def handed_s(self) -> Floats:
        """[M, N, Y + 1] s of sending adapters up over a server's whole band at full power; inf out of reach.

        At Y they go to the server that hears the user best.
        """
        shape = (self.servers, len(self), self.layers + 1)
        if self.books is None:
            return np.zeros(shape)
        network, bits = self.network, self.books.adapters_up
        ahead = rate(network.bandwidth[:, None], network.max_power, network.gain, network.noise)
        with np.errstate(divide="ignore", invalid="ignore"):
            seconds: Floats = np.where(bits > 0, bits / ahead[:, :, None], 0.0)
        seconds[:, :, -1] = seconds[network.gain.argmax(axis=0), np.arange(len(self)), -1]
        return seconds

    @cached_property
    def handing_price(self) -> Floats:
        """[N] what a second of sending at full power costs, 1/s."""
        network = self.network
        joules = sending_j(network.max_power, 1.0, network.amplifier_efficiency, network.circuit_power)
        price: Floats = self.time_weight + self.energy_price * joules
        return price

    @cached_property
    def local(self) -> Floats:
        """[N, Y + 1] cost of what hangs on the user and its split alone; inf where not allowed.

        Its own work, its instability, what it receives, and at Y its adapters.
        """
        network, f = self.network, self.clock
        joules = computing_j(np.ones(len(self)), f, network.kappa, network.static_power)  # per cycle
        cycle = self.time_weight / f + self.energy_price * joules
        with np.errstate(invalid="ignore"):
            shaky = self.stability_weight * self.instability if self.stability_weight else 0.0
        shaky = shaky + self.fit_weight * self.misfit[:, None]
        cost: Floats = self.own_cycles * cycle[:, None] + shaky
        if self.books is not None:
            heard = self.time_weight + self.energy_price * network.receive_power
            cost = cost + heard[:, None] * self.received_s + self.time_weight * self.books.aggregation_s
            cost[:, -1] += self.handing_price * self.handed_s[0, :, -1]
        return np.where(self.allowed, cost, np.inf)

    @cached_property
    def beside(self) -> Floats:
        """[M, N, Y + 1] cost of handing over adapters at a server; 0 at Y, where ``local`` has it."""
        cost: Floats = self.handing_price[:, None] * self.handed_s
        cost[:, :, -1] = 0.0
        return cost

    def fixed(self, server: Integers, split: Integers) -> Floats:
        """Return [..., N] what no share changes for users at servers (``ALL_LOCAL`` for none) and splits."""
        users = np.arange(len(self))
        away = np.where(server < 0, 0.0, self.beside[np.maximum(server, 0), users, split])
        cost: Floats = self.local[users, split] + away
        return cost

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
