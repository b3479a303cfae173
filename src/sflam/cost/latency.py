"""How long a round takes, stage by stage. K devices; every time in s, of one mini-batch unless said otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sflam.network.channel import rate
from sflam.network.network import Floats, Network
from sflam.workload import Workload


@dataclass(frozen=True, kw_only=True, eq=False)
class Stages:
    """The stages of one mini-batch, in the order they happen, and of one aggregation; [K] each, s.

    Attributes:
        forward: on the device, tau^f.
        up: activations on the way up, t.
        server: forward and backward on the server, tau^srv.
        down: the gradient on the way down, t^dn.
        backward: on the device, tau^b.
        aggregation: adapters up and down, once a round, t^agg.
    """

    forward: Floats
    up: Floats
    server: Floats
    down: Floats
    backward: Floats
    aggregation: Floats

    @property
    def compute(self) -> Floats:
        """Computing on the device, tau = tau^f + tau^b (1.12)."""
        return self.forward + self.backward

    @property
    def step(self) -> Floats:
        """One mini-batch, all stages one after another."""
        return self.forward + self.up + self.server + self.down + self.backward


def stages(
    network: Network,
    workload: Workload,
    *,
    cut: ArrayLike,
    bits: ArrayLike,
    bandwidth: ArrayLike,
    power: ArrayLike,
    clock: ArrayLike,
    bits_down: ArrayLike = 8,
    server: ArrayLike = 0,
    server_clock: ArrayLike | None = None,
    down_rate: ArrayLike = np.inf,
) -> Stages:
    """Return the time of every stage, (1.11) and (1.12). Numbers stand for all devices, sequences are one per device.

    Args:
        network: who is there.
        workload: what a mini-batch costs.
        cut: blocks on the device.
        bits: bits per activation value up.
        bandwidth: Hz up; without any, the way up takes for ever.
        power: W.
        clock: Hz.
        bits_down: bits per gradient value down.
        server: index of each device's server.
        server_clock: Hz each device has of its server; None gives each the whole clock, as when they take turns.
        down_rate: bit/s down; infinite where the way down is not counted.
    """
    every = len(network)
    cuts, bit, bit_down, home = (_whole(value, every) for value in (cut, bits, bits_down, server))
    band, watt, hertz = (
        np.broadcast_to(np.asarray(value, float), (every,)) for value in (bandwidth, power, clock)
    )
    back = np.broadcast_to(np.asarray(down_rate, float), (every,))
    ahead = rate(band, watt, network.gain[home, np.arange(every)], network.noise)
    share = network.server_clock[home] if server_clock is None else np.broadcast_to(server_clock, (every,))
    serving = np.add(workload.server_forward, workload.server_backward)[cuts]
    speed = hertz * network.flops_per_cycle
    adapters = np.array([workload.adapter_bits(one) for one in range(workload.blocks + 1)], float)[cuts]
    sent = np.array([workload.up_bits(int(one)) for one in bit], float)
    returned = np.array(
        [workload.down_bits(int(one), int(q)) for one, q in zip(cuts, bit_down, strict=True)], float
    )
    return Stages(
        forward=np.asarray(workload.device_forward)[cuts] / speed,
        up=_seconds(sent, ahead),
        server=serving / (share * network.server_flops_per_cycle[home]),
        down=_seconds(returned, back),
        backward=np.asarray(workload.device_backward)[cuts] / speed,
        aggregation=_seconds(adapters, ahead) + _seconds(adapters, back),
    )


def chain(times: Stages, *, steps: int = 1) -> float:
    """Return the time of a round where every device goes through its own stages, H = ``steps`` times (1.13)."""
    return float(steps * times.step.max() + times.aggregation.max())


def barrier(times: Stages, server_s: float, *, steps: int = 1) -> float:
    """Return the time of a round where the server waits for all, serves all in ``server_s``, and answers all (1.14)."""
    step = (times.forward + times.up).max() + server_s + (times.down + times.backward).max()
    return float(steps * step + times.aggregation.max())


def pipelined(times: Stages, *, micro_batches: int, steps: int = 1) -> float:
    """Return the time of a round where each mini-batch goes in J micro-batches, stages overlapping (1.15).

    With one micro-batch it is the chain; with many, only the slowest stage of the slowest device remains.
    """
    each = np.stack([times.forward, times.up, times.server, times.down, times.backward])
    step = each.sum(axis=0) / micro_batches + (1 - 1 / micro_batches) * each.max(axis=0)
    return float(steps * step.max() + times.aggregation.max())


def server_turn(
    network: Network, workload: Workload, *, cut: ArrayLike, server: ArrayLike = 0, steps: ArrayLike = 1
) -> Floats:
    """Return the s each server needs for ``steps`` mini-batches of each of its devices, at its full clock; [M]."""
    every = len(network)
    cuts, home = _whole(cut, every), _whole(server, every)
    work = np.add(workload.server_forward, workload.server_backward)[cuts] * np.asarray(steps, float)
    flops = np.bincount(home, weights=work, minlength=len(network.server_clock))
    turn: Floats = flops / (network.server_clock * network.server_flops_per_cycle)
    return turn


def _whole(value: ArrayLike, count: int) -> NDArray[np.int64]:
    return np.broadcast_to(np.asarray(value, np.int64), (count,))


def _seconds(bits: Floats, bit_rate: Floats) -> Floats:
    """Return bits over rate: 0 for nothing to send, infinite for no rate."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(bits > 0, bits / bit_rate, 0.0)
