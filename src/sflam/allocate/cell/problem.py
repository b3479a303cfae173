"""Problem A (2.1): one cell, one band, devices that compute and then send.

    min  lam (T0 + H T) + sum_k W_k [H (E_tx + E_cmp) + P0_k (T0 + H T)]    over bandwidths, powers and clocks
    s.t. c_k + tau_k + t_k <= T, bandwidths share B, powers, clocks, deadline and energies hold their limits

where devices go their own ways through a round; where they wait for each other at every step, T is the sum of its
stages, each as long as the slowest device in it (1.14).

with H local steps a round and W_k = (1 - lam) w_k, times 1 + sum_k chi_k v(q_k), the rounds that quantization costs
(2.16), where devices' sensitivities chi are given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sflam.allocate.cell.airtime import kind_of, least_energy, slots
from sflam.allocate.cell.arrays import Cell, fastest_clock
from sflam.allocate.cell.stages import stages_in
from sflam.allocate.limits import RANGES, Impossible, devices, too_little, whole, wrong_numbers, wrong_values
from sflam.cost.convergence import quantization_noise
from sflam.cost.energy import computing_j, receiving_j
from sflam.cost.memory import fits
from sflam.cost.timing import Lockstep, Stages
from sflam.cost.traffic import HEADER_BITS, Traffic, adapters_down, adapters_up, steps_down, steps_up
from sflam.errors import AllocationError
from sflam.network.network import Floats, Network
from sflam.sizes import MAX_BITS, MIN_BITS
from sflam.units import human_bytes
from sflam.workload import Workload


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """A cell, a workload, limits and weights. A number holds for every device; a sequence has one value per device.

    Attributes:
        network: devices and servers.
        workload: what fine-tuning costs at each cut.
        cut: blocks on the device.
        bits: bits of an activation value on the way up.
        bits_down: bits of a gradient value on the way down; what they take is in ``delay`` and ``receiving``.
        latency_weight: lam in [0, 1]; energy weighs 1 - lam. 0 needs a deadline.
        deadline: s of a round; inf for none.
        choose_clocks: whether clocks are decided; without, devices run at full speed and computing energy is not
            counted in the objective.
        local_steps: mini-batches per round, H; a fraction is a smaller one.
        made: those of them whose activations the device makes, where it or the server keeps others; None for all.
        sent: those whose activations cross, where the server keeps others; None for all.
        averages: times a round that the gradients of device halves go up and their mean comes down.
        traffic: what the round's mini-batches hold: bodies then count whole, and adapters with them; None counts
            activations alone, as published.
        lockstep: the steps at which devices wait for each other; None where none waits before the round's end.
        base_s: T0, s a round that the plan does not change.
        base_j: J a round that the plan does not change, the server's for instance; weighs 1 - lam.
        delay: c_k, s a step that the plan does not change: the server's turn, the way down.
        receiving: s a step in which the radio receives; a part of the delay, not beside it. Where devices share time
            (``network.airtime``), s of the channel, which are longer the smaller the device's share.
        radio_cap: J of transmission a round, its circuits included; inf for none.
        compute_cap: J of computing a round; inf for none.
        energy_cap: J of all a round, receiving and idling too; inf for none.
        sensitivity: chi_k (2.12), how much a device's quantization noise slows learning; 0 does not count rounds.
        sensitivity_down: the same of the noise on the way down.
        bit_choices: widths that a method which chooses bits may give, of those the workload has.
        bits_floor: fewest bits that a method which chooses bits may give a device: q_min of (2.14), hard.
        server: which server's band is shared.
        own: [K] workloads of the devices where each has its own (LoRA ranks), of the model that ``workload`` is of;
            empty where all have that one.
        own_trunk: whether the server's half for a device is that of its own workload, too, and not of ``workload``.

    Raises:
        AllocationError: zero or NaN gains, no device, a cut the model has not, weights out of range, ...
    """

    network: Network
    workload: Workload
    cut: ArrayLike = 1
    bits: ArrayLike = 8
    bits_down: ArrayLike = 8
    latency_weight: float = 0.5
    deadline: float = np.inf
    choose_clocks: bool = True
    local_steps: ArrayLike = 1
    made: ArrayLike | None = None
    sent: ArrayLike | None = None
    averages: ArrayLike = 0
    traffic: Traffic | None = None
    lockstep: Lockstep | None = None
    base_s: float = 0.0
    base_j: float = 0.0
    delay: ArrayLike = 0.0
    receiving: ArrayLike = 0.0
    radio_cap: ArrayLike = np.inf
    compute_cap: ArrayLike = np.inf
    energy_cap: ArrayLike = np.inf
    sensitivity: ArrayLike = 0.0
    sensitivity_down: ArrayLike = 0.0
    bit_choices: tuple[int, ...] = tuple(range(2, MAX_BITS + 1))
    bits_floor: ArrayLike = MIN_BITS
    server: int = 0
    own: tuple[Workload, ...] = ()
    own_trunk: bool = False

    def __post_init__(self) -> None:
        found = self._wrong_network() or self._wrong_request()
        if found:
            raise AllocationError("; ".join(found))

    def __len__(self) -> int:
        return len(self.network)

    def _wrong_network(self) -> list[str]:
        network, server = self.network, self.server
        if not len(network):
            return ["the network has no devices; give at least one"]
        if not 0 <= server < len(network.bandwidth):
            return [f"server {server} of {len(network.bandwidth)}; count from 0"]
        found = wrong_values("gain", network.gain[server], partial(devices, network))
        return found + wrong_numbers(network, server)

    def _wrong_request(self) -> list[str]:
        found = []
        for name in PER_DEVICE:
            values = np.asarray(0 if (given := getattr(self, name)) is None else given)
            if values.ndim > 1 or (values.ndim and values.shape != (len(self),)):
                found.append(f"{name} has shape {list(values.shape)}; give one number, or one per device")
            elif not (least := values.min()) >= 0:  # or NaN
                found.append(f"{name} holds {least}; it must be 0 or more")
            elif name in RANGES:
                found += wrong_values(name, values, positive=name == "local_steps")
        if not found and not whole(self.each("cut"), 0, self.workload.blocks):
            found.append(f"cut {np.max(self.cut)} of a model with {self.workload.blocks} blocks")
        for name in ("bits", "bits_down"):
            if not found and not whole(self.each(name), MIN_BITS, MAX_BITS):
                found.append(f"{name} {np.max(getattr(self, name))}; bits are {MIN_BITS} to {MAX_BITS}")
        if self.latency_weight == 0 and not np.isfinite(self.deadline):
            found.append("latency_weight is 0 without a deadline, so that no round is too long; give either")
        if not self.deadline > 0:
            found.append(f"deadline is {self.deadline}; it must be positive")
        for name in ("base_s", "base_j", "latency_weight"):
            found += wrong_values(name, np.array(getattr(self, name)), positive=False)
        found += wrong_values("1 - latency_weight", np.array(1 - self.latency_weight), positive=False)
        if not self.widths:
            found.append(
                f"bit_choices {self.bit_choices} holds none of the workload's {self.workload.bit_choices}"
            )
        elif not found and np.max(self.bits_floor) > self.widths[-1]:
            found.append(
                f"bits_floor {np.max(self.bits_floor)} is above the largest of bit_choices, {self.widths[-1]}"
            )
        if not found and (wrong := wrong_values("payload", self.payload, partial(devices, self.network))):
            found.append(f"{wrong[0]}: what a device sends up in a round")
        return found

    def each(self, name: str) -> NDArray[Any]:
        """Return an attribute as an array [K]."""
        found = np.asarray(getattr(self, name))
        return found if found.shape == (len(self),) else np.broadcast_to(found, (len(self),))

    def change(self, **changes: Any) -> Self:
        """Return the problem with other attributes."""
        return replace(self, **changes)

    def only(self, index: NDArray[np.int64]) -> Self:
        """Return the problem of the devices at ``index`` alone, with the whole band."""
        given = [name for name in PER_DEVICE if getattr(self, name) is not None]
        each: dict[str, Any] = {name: self.each(name)[index] for name in given}
        own = tuple(self.own[at] for at in index) if self.own else ()
        parts = {name: part.only(index) for name in PARTS if (part := getattr(self, name)) is not None}
        return self.change(network=self.network.only(index.tolist()), own=own, **parts, **each)

    def served_flop(self, cuts: ArrayLike) -> Floats:
        """Return [K] FLOP of a mini-batch on the server for each device, cut at ``cuts``."""
        rows = np.broadcast_to(np.asarray(cuts, np.int64), (len(self),)).tolist()
        each = self.own if self.own and self.own_trunk else (self.workload,) * len(self)
        return np.array(
            [one.server_forward[at] + one.server_backward[at] for one, at in zip(each, rows, strict=True)]
        )

    @property
    def workloads(self) -> tuple[Workload, ...]:
        """What a mini-batch costs each device, [K]."""
        return self.own or (self.workload,) * len(self)

    def at_cut(self, name: str) -> Floats:
        """Return [K] of what each device's workload has at its cut."""
        if self.own:
            return np.array(
                [getattr(w, name)[c] for w, c in zip(self.own, self.each("cut"), strict=True)], float
            )
        values: Floats = np.array(getattr(self.workload, name), float)[self.each("cut")]
        return values

    @property
    def room(self) -> NDArray[np.bool_]:
        """[K, Y + 1] whether a cut fits a device's memory."""
        if self.own:
            need = np.array([workload.device_memory for workload in self.own])
            found: NDArray[np.bool_] = need <= self.network.memory[:, None]
            return found
        return fits(self.network, self.workload)

    @cached_property
    def cycles(self) -> Floats:
        """[K] clock cycles of a round on the device: forward and backward of H mini-batches, but what is kept."""
        both = self.at_cut("device_forward") + self.at_cut("device_backward")
        flop = self.each("local_steps") * both
        if self.made is not None:
            below = self.at_cut("device_forward") - self.workload.head_forward
            flop = self.each("local_steps") * (both - below) + self.each("made") * below
        work: Floats = flop / self.network.flops_per_cycle
        return work

    @cached_property
    def stages(self) -> Stages | None:
        """The stages of a round in which devices wait for each other."""
        return None if self.lockstep is None else stages_in(self, self.lockstep)

    @property
    def waits(self) -> bool:
        """Whether devices wait for each other before a round's end: one alone never does."""
        return self.lockstep is not None and len(self) > 1

    @cached_property
    def payload(self) -> Floats:
        """[K] nats of a round on the way up (1.8)."""
        nats, widths = np.zeros(len(self)), self.each("bits")
        for width in np.unique(widths).tolist():
            nats = np.where(widths == width, self.payload_at(width), nats)
        return nats

    @cached_property
    def cell(self) -> Cell:
        """The problem as arrays, limits on computing energy turned into limits on clocks.

        Raises:
            Impossible: a cap or the memory of a device is too small for any plan.
        """
        network, every = self.network, len(self)
        self._check_memory()
        # an amplifier that radiates a share of what it draws: the same cell in drawn watts
        noise = network.noise / network.gain[self.server] / network.amplifier_efficiency
        drawn = network.max_power / network.amplifier_efficiency
        # J that a payload costs even over unlimited bandwidth
        least = noise * self.payload * (1 + network.circuit_power / drawn)
        waits = {"delay": self.each("local_steps") * self.each("delay").astype(float)}
        if network.airtime:
            channel, full = float(network.bandwidth[self.server]), network.full_power
            least = least_energy(noise, self.payload, drawn, network.circuit_power, channel, full)
            heard = self.each("local_steps") * self.each("receiving").astype(float)
            waits = slots(waits["delay"], heard, channel)
        radio, caps, joint = (
            self.each(name).astype(float) for name in ("radio_cap", "compute_cap", "energy_cap")
        )
        joint = joint - self.received_j
        if self.choose_clocks:
            caps = np.minimum(caps, joint - least)
        clock = fastest_clock(self.cycles, network.max_clock, network.kappa, caps)
        with np.errstate(divide="ignore", invalid="ignore"):
            computing = computing_j(self.cycles, clock, network.kappa)
            left = radio if self.choose_clocks else np.minimum(radio, joint - computing)
        if (poor := (clock <= 0) | (left <= least)).any():
            slow = self.choose_clocks | (clock <= 0)
            raise Impossible(too_little(network, poor, slow, computing, least, self.received_j))
        cell = kind_of(network)(
            **waits,
            latency_weight=self.time_weight,
            weight=(1 - self.latency_weight) * network.energy_weight,
            payload=self.payload,
            noise=noise,
            max_power=drawn,
            cycles=self.cycles,
            max_clock=clock,
            kappa=network.kappa,
            idle_power=network.static_power,
            circuit_power=network.circuit_power,
            amplifier_efficiency=network.amplifier_efficiency,
            full_power=network.full_power * (network.airtime > 0),
            radio_cap=left,
            energy_cap=joint,
            bandwidth=float(network.shared_band[self.server]),
            deadline=float(self.deadline - self.base_s),
            constant=float(self.base_s),
        )
        if self.choose_clocks:
            return cell
        # what is drawn while waiting takes from a cap the more, the longer the round
        joint = np.where(network.static_power > 0, joint - computing, np.inf)
        return replace(cell, delay=cell.busy, cycles=np.zeros(every), energy_cap=joint)

    def _check_memory(self) -> None:
        need = self.at_cut("device_memory")
        if (full := need > self.network.memory).any():
            raise Impossible(
                f"{devices(self.network, full)} would need {human_bytes(float(need[full][0]))} of memory; cut earlier"
            )

    def total(self, objective: float) -> float:
        """Return the whole objective from the cell's: with what the plan does not change, times the rounds."""
        return self.rounds * (objective + self.constant)

    @property
    def constant(self) -> float:
        """The objective's part that no plan changes: (lam + (1 - lam) sum w P0) T0 + (1 - lam) (J0 + sum w E_rx)."""
        joules = self.base_j + float(self.network.energy_weight @ self.received_j)
        return self.time_weight * self.base_s + (1 - self.latency_weight) * joules

    @property
    def received_j(self) -> Floats:
        """[K] J of receiving a round."""
        seconds = self.each("local_steps") * self.each("receiving").astype(float)
        return receiving_j(self.network.receive_power, seconds)

    @property
    def time_weight(self) -> float:
        """1/s: what a second of the round costs, lam + (1 - lam) sum_k w_k P0_k: all devices idle in it."""
        idle = float(self.network.energy_weight @ self.network.static_power)
        return float(self.latency_weight + (1 - self.latency_weight) * idle)

    @property
    def rounds(self) -> float:
        """Rounds to learn at these bits over rounds without quantization, 1 + sum chi v(q), both ways (2.15)."""
        return self.rounds_at(self.each("bits"))

    def rounds_at(self, bits: ArrayLike) -> float:
        """Return the same at other bits up [K]."""
        back = float(self.each("sensitivity_down") @ quantization_noise(self.each("bits_down")))
        return 1.0 + float(self.each("sensitivity") @ quantization_noise(bits)) + back

    @property
    def widths(self) -> tuple[int, ...]:
        """The bit widths to choose from, ascending."""
        return tuple(sorted(set(self.bit_choices) & set(self.workload.bit_choices)))

    def widest(self, bits: ArrayLike) -> NDArray[np.int64]:
        """Return [K] the least widths to choose from that are neither below ``bits`` nor below each device's floor."""
        widths = np.array(self.widths)
        wanted = np.maximum(bits, self.each("bits_floor"))
        return np.asarray(widths[np.minimum(np.searchsorted(widths, wanted), len(widths) - 1)], np.int64)

    def payload_at(self, bits: ArrayLike) -> Floats:
        """Return the nats of a round on the way up at a width, [K], or at several, [Q, K] (1.8)."""
        work, widths = self.own or (self.workload,), np.atleast_1d(bits)
        if self.traffic is not None:
            steps = np.array([steps_up(self.traffic, work, int(width)) for width in widths])
            whole: Floats = (steps + self.adapter_bits_up + self.averaged_bits) * np.log(2)
            return whole if np.ndim(bits) else whole[0]
        sent = np.array([[w.up_bits(int(width)) for w in work] for width in widths], float) * np.log(2)
        nats: Floats = sent * self.each("local_steps")
        if self.sent is not None:
            first = np.array([[w.activation_bits(int(width)) for w in work] for width in widths], float)
            first = first * np.log(2)
            nats = (sent - first) * self.each("local_steps") + first * self.each("sent")
        if np.any(self.averages):
            nats = nats + self.averaged_bits * np.log(2)
        return nats if np.ndim(bits) else nats[0]

    @property
    def adapter_bits_up(self) -> Floats:
        """[K] bits of what was trained a round on the way up, with the headers of its bodies."""
        return adapters_up(self.own or (self.workload,), self.each("cut").tolist())

    @property
    def adapter_bits_down(self) -> Floats:
        """[K] bits of adapters a round on the way down, with the headers of their bodies."""
        return adapters_down(self.own or (self.workload,), self.each("cut").tolist())

    @property
    def down_bits(self) -> Floats:
        """[K] bits of a round on the way down (1.8) (1.9): whole bodies, and adapters, where traffic is known."""
        work, cuts = self.own or (self.workload,), self.each("cut").tolist()
        if self.traffic is not None:
            steps = steps_down(self.traffic, work, cuts, self.each("bits_down"))
            return steps + self.adapter_bits_down + self.averaged_bits
        widths = self.each("bits_down").tolist()
        bits = np.array(
            [self.workload.down_bits(cut, own) for cut, own in zip(cuts, widths, strict=True)], float
        )
        down: Floats = bits * self.each("local_steps")
        return down + self.averaged_bits

    @property
    def averaged_bits(self) -> Floats:
        """[K] bits of a round, one way, of gradients of device halves that are averaged in every step."""
        one = np.array([self.workload.half_gradient_bits(int(cut)) for cut in self.each("cut")], float)
        if self.traffic is not None:
            one = one + HEADER_BITS * (one > 0)
        bits: Floats = self.each("averages") * one
        return bits


PARTS = ("traffic", "lockstep")
PER_DEVICE: tuple[str, ...] = ("local_steps", "made", "sent", "averages", "cut", "bits", "delay", "receiving")
PER_DEVICE += ("radio_cap", "compute_cap", "energy_cap", "sensitivity", "bits_floor")
PER_DEVICE += ("bits_down", "sensitivity_down")
