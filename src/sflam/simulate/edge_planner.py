"""The plan of a simulated round among several servers: who is where, and what each is given. N users, M servers.

Where the job fixes servers and cuts (``fleet.plan``, ``fleet.cuts``, ``fleet.servers``), they stay, and a round's plan
shares out bands and clocks for the current channel. Elsewhere every plan also chooses servers and cuts anew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.shares import EdgeShares
from sflam.allocate.referee import EdgeScore, score
from sflam.allocate.registry import stay
from sflam.cost.energy import computing_j, receiving_j, sending_j
from sflam.errors import AllocationError
from sflam.network.channel import rate
from sflam.network.network import Floats, Network
from sflam.plan import ALL_LOCAL, DevicePlans, Status
from sflam.planner import edge as planning_edge
from sflam.simulate.clock import RoundCost
from sflam.simulate.planner import Planner, Turn
from sflam.sizes import adapter_payload_bits
from sflam.units import human_bytes
from sflam.workload import Workload


class EdgePlanner(Planner):
    """States problem B (3.1) of some users, and has it solved.

    Args:
        numbers: trained numbers of the whole model, which users that train alone send.
        at_tuned: [Y] what a mini-batch costs with 1, 2, ... Y first layers tuned, where users tune other numbers.
        moves: whether plans choose servers and splits; else every user stays where it starts.
        others: those of :class:`Planner`.

    Raises:
        AllocationError: a start at which a user cannot stay.
    """

    several = True

    def __init__(
        self,
        *others: Any,
        numbers: int,
        moves: bool,
        at_tuned: tuple[Workload, ...] = (),
        **named: Any,
    ) -> None:
        super().__init__(*others, **named)
        self.numbers, self.moves, self.at_tuned = numbers, moves, at_tuned
        self.method = planning_edge.method_of(self.job)
        self.every_device = tuple(range(len(self.placements)))

    @property
    def counts_all(self) -> bool:
        """Whether plans and charges are of all that crosses."""
        return planning_edge.counts_all(self.job)

    def problem(
        self, network: Network, devices: tuple[int, ...], batches: Floats | None = None
    ) -> EdgeProblem:
        """Return the problem of ``devices`` in a network of all; a round's mini-batches count.

        Args:
            network: of all.
            devices: of the problem.
            batches: [n] mini-batches other than those expected.
        """
        problem = planning_edge.problem_of(
            self.job,
            self.workload,
            network=network.only(devices),
            steps=self.mini_batches(devices) if batches is None else batches,
            at_tuned=self.at_tuned,
            traffic=self.draws.of(devices) if self.draws else None,
            whole_values=self.numbers,
        )
        if problem.choices is None or (self.moves and planning_edge.chooses_tuned(self.job)):
            return problem
        tuned = [self.placements[device].tuned or problem.layers for device in devices]
        return problem.at(tuned)

    def cost(
        self,
        network: Network,
        turn: Turn,
        up: Floats,
        down: Floats,
        workload: Workload | None = None,
        batches: Floats | None = None,
    ) -> RoundCost:
        """Return the cost of a turn, by the referee, with the bits really sent.

        Adapters move after the last step, at full power. Where plans count them, user after user has the whole band;
        else each server's band is shared out equally among those who report to it. A user that trains alone reports
        what it trained to the server that hears it best.
        """
        problem, given = self._given(network, turn, batches)
        away = given.server != ALL_LOCAL
        sent = np.where(away & (up > 0), up * np.log(2), problem.payload)
        problem = problem.change(payload=sent)
        if problem.books is not None:
            answers = problem.books.down_bits.copy()
            users = np.arange(len(problem))
            answers[users, given.cut] = np.where(away & (up > 0), down, answers[users, given.cut])
            problem = problem.change(books=replace(problem.books, down_bits=answers))
        real = score(problem, EdgeShares.from_plan(given))
        if problem.books is not None:
            return self._whole(problem, given, real)
        handing = self._handing(problem, given.server, given.cut, given.tuned)
        there = problem.network
        return RoundCost(
            compute_s=real.compute,
            up_s=real.transmit,
            server_s=real.serve,
            down_s=np.zeros(len(problem)),
            adapters=handing,
            compute_j=real.compute_energy,
            transmit_j=real.transmit_energy,
            adapter_j=sending_j(there.max_power, handing, there.amplifier_efficiency, there.circuit_power),
            server_j=float(real.server_energy.sum()),
            counted=real.compute_energy + real.transmit_energy,
        )

    def bodies(self, network: Network, turn: Turn) -> tuple[Floats, Floats]:
        """Return the bits [n] of all bodies of the steps of a turn's devices, up and down, as drawn for the round.

        Args:
            network: of all devices.
            turn: whose.
        """
        problem, given = self._given(network, turn, None)
        assert problem.books is not None, "bodies are drawn where all counts"
        away, users = given.server != ALL_LOCAL, np.arange(len(problem))
        up = np.where(away, problem.payload / np.log(2), 0.0)
        return np.rint(up), np.rint(problem.books.down_bits[users, given.cut])

    def _given(self, network: Network, turn: Turn, batches: Floats | None) -> tuple[EdgeProblem, DevicePlans]:
        """Return the problem of a turn at what its plan tunes, and what the plan gives."""
        problem, given = self.problem(network, turn.devices, batches), turn.plan.devices
        return (problem if problem.choices is None else problem.at(given.tuned)), given

    def _whole(self, problem: EdgeProblem, given: DevicePlans, real: EdgeScore) -> RoundCost:
        """Return the cost of a turn whose plan counts all that crosses."""
        assert problem.books is not None
        users, network = np.arange(len(problem)), problem.network
        fetched = problem.books.adapters_down[users, given.cut] / problem.books.down_rate
        return RoundCost(
            compute_s=real.compute,
            up_s=real.transmit,
            server_s=real.serve,
            down_s=real.receive - fetched,
            adapters=real.handing + fetched,
            compute_j=real.compute_energy,
            transmit_j=real.sending_energy,
            adapter_j=real.transmit_energy - real.sending_energy,
            receive_j=real.receive_energy,
            server_j=float(real.server_energy.sum()),
            counted=real.compute_energy + real.transmit_energy + real.receive_energy,
            inside=True,
            stages_s=real.latency,
            fetch_s=fetched,
            fetch_j=receiving_j(network.receive_power, fetched),
        )

    def dearest(self, network: Network) -> Floats:
        """Return the J of each user's round at full speed, sent at full power over its best server's whole band."""
        problem = self.problem(network, self.every_device)
        there, best = problem.network, problem.network.gain.argmax(axis=0)
        gain = there.gain[best, np.arange(len(problem))]
        ahead = rate(there.bandwidth[best], there.max_power, gain, there.noise)
        away = self.servers(self.every_device) != ALL_LOCAL
        seconds = problem.payload / (ahead * np.log(2)) * away
        radio = sending_j(there.max_power, seconds, there.amplifier_efficiency, there.circuit_power)
        return radio + computing_j(
            problem.own_cycles[np.arange(len(problem)), self.cuts(self.every_device)],
            there.max_clock,
            there.kappa,
            there.static_power,
        )

    def expect_possible(self, network: Network) -> None:
        """Raise where no round of any users can be planned, whatever the fading.

        Raises:
            ConfigError: settings that problem B has no place for.
            AllocationError: among others, a user that may not keep the layers it has, or has no such server.
        """
        problem = self.problem(network, self.every_device)
        if self.moves:
            return
        network, layers = problem.network, problem.layers
        split, server = self.cuts(self.every_device), self.servers(self.every_device)
        if (far := server >= problem.servers).any():
            user = int(np.argmax(far))
            raise AllocationError(
                f"{network.names[user]} is at server {server[user]}, but the network has {problem.servers}, from 0 on; "
                "change fleet.servers or network.servers"
            )
        if (half := (split == layers) != (server == ALL_LOCAL)).any():
            user = int(np.argmax(half))
            raise AllocationError(
                f"{network.names[user]} keeps {split[user]} of {layers} layers and is at server {server[user]}; who "
                f"keeps them all has server {ALL_LOCAL}, and no other device; change fleet.cuts or fleet.servers"
            )
        if (wrong := ~problem.allowed[np.arange(len(split)), split]).any():
            user = int(np.argmax(wrong))
            least, most = problem.least_split, problem.most_split or layers
            why = f"but splits are {least} to {most}"
            if problem.memory is not None and problem.memory[user, split[user]] > network.memory[user]:
                need, have = float(problem.memory[user, split[user]]), float(network.memory[user])
                why = f"which need {human_bytes(need)} of its {human_bytes(have)}"
            raise AllocationError(
                f"{network.names[user]} keeps {split[user]} layers, {why}; change fleet.cuts, plan.split_least or "
                "plan.split_most"
            )

    def _ask(
        self, number: int, network: Network, devices: tuple[int, ...], battery: Floats | None
    ) -> tuple[Turn | None, tuple[int, ...]]:
        problem = self.problem(network, devices)
        if self.moves:
            plan = planning_edge.plan_with(problem, self.method, self.job.seed)
        else:
            plan = stay(problem, self.method, self.servers(devices), self.cuts(devices))
        if not len(plan.devices) or plan.status is Status.INFEASIBLE:
            raise AllocationError(f"round {number + 1}: {'; '.join(plan.advice)}")
        return self.turn(devices, plan), ()

    def _handing(
        self,
        problem: EdgeProblem,
        server: NDArray[np.int64],
        cut: NDArray[np.int64],
        tuned: NDArray[np.int64],
    ) -> Floats:
        """Return the seconds [n] that each user's adapters take."""
        network, users = problem.network, np.arange(len(problem))
        away = server != ALL_LOCAL
        home = np.where(away, server, network.gain.argmax(axis=0))
        band = (network.bandwidth / np.maximum(np.bincount(home, minlength=problem.servers), 1))[home]
        work = [self.at_tuned[own - 1] if self.at_tuned else self.workload for own in tuned.tolist()]
        # A user alone trains less than the whole model's numbers where it tunes fewer blocks.
        every = self.workload.adapter_values[-1]
        whole = [
            each.adapter_bodies * (adapter_payload_bits(numbers, each.adapter_width) + each.extra_adapter)
            - each.change_saves(numbers)
            for each in work
            for numbers in (self.numbers - every + each.adapter_values[-1],)
        ]
        bits = np.where(
            away, [each.trained_bits(at) for each, at in zip(work, cut.tolist(), strict=True)], whole
        )
        ahead: Floats = rate(band, network.max_power, network.gain[home, users], network.noise)
        return bits / ahead
