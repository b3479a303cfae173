"""What crosses the network in a round, in bits: activations, gradients, labels, headers, adapters. K devices.

Planner, simulator and report count with these functions; the numbers are those of the bodies that really travel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sflam.network.network import Floats
from sflam.sizes import HEADER_BYTES, is_variable, payload_bits
from sflam.workload import Workload

HEADER_BITS = 8 * HEADER_BYTES
TOKENS = 8  # whose codes fill whole bytes at any width


@dataclass(frozen=True, kw_only=True, eq=False)
class Traffic:
    """What the mini-batches of a device's round hold, as far as the sizes of their bodies depend on it; [K] each.

    Attributes:
        bodies: mini-batches.
        rows: samples in them.
        tokens: valid tokens in them.
        fresh: those of the tokens whose activations cross; fewer where the server keeps some.
        numbers: numbers of four bytes that go up beside activations: labels, lengths, numbers of samples.
    """

    bodies: Floats
    rows: Floats
    tokens: Floats
    fresh: Floats
    numbers: Floats

    def only(self, index: NDArray[np.int64]) -> Traffic:
        """Return the traffic of the devices at ``index``."""
        return Traffic(**{each.name: getattr(self, each.name)[index] for each in fields(self)})


def expected_traffic(workload: Workload, steps: ArrayLike, count: int) -> Traffic:
    """Return the traffic of ``steps`` mini-batches, whole or fractions, of ``count`` devices: tokens of mean length."""
    number = np.broadcast_to(np.asarray(steps, float), (count,))
    rows = number * workload.batch
    tokens = rows * workload.tokens
    labels = tokens if workload.labels_per_token else rows
    numbers = labels * (workload.exchanges == 1) + rows * (workload.texts + workload.numbered)
    return Traffic(bodies=np.ceil(number), rows=rows, tokens=tokens, fresh=tokens, numbers=numbers)


def whole_traffic(workload: Workload, count: int) -> Traffic:
    """Return the traffic of devices that hold the whole model: its adapters, once a round."""
    one, none = np.ones(count), np.zeros(count)
    bodies = one * workload.adapter_bodies
    return Traffic(bodies=bodies, rows=none, tokens=one, fresh=one, numbers=none)


def token_bits(workload: Workload, bits: int) -> float:
    """Return the bits of a token at the cut: its codes and its side bits."""
    return payload_bits(TOKENS, workload.hidden, bits, workload.scheme) / TOKENS


def _padding(workload: Workload) -> int:
    """Return the most bits that fill the codes of a body up to whole bytes."""
    return 8 if workload.hidden % 8 or is_variable(workload.scheme) else 0


def _of_each(work: Sequence[Workload], cuts: Sequence[int]) -> list[Workload]:
    """Return the workload of every device, where one may stand for all."""
    return list(work) * (len(cuts) if len(work) == 1 else 1)


def steps_up(traffic: Traffic, work: Sequence[Workload], bits: int) -> Floats:
    """Return the bits of all bodies of the steps on the way up, [K].

    Args:
        traffic: of the round.
        work: of each device, or one of all.
        bits: of an activation value.
    """
    exchanges = np.array([each.exchanges for each in work])
    token = np.array([token_bits(each, bits) for each in work])
    body = np.array([each.exchanges * (HEADER_BITS + _padding(each)) for each in work])
    tokens = traffic.fresh + (exchanges - 1) * traffic.tokens
    up: Floats = token * tokens + body * traffic.bodies + 32 * traffic.numbers
    return up


def steps_down(traffic: Traffic, work: Sequence[Workload], cuts: Sequence[int], bits: ArrayLike) -> Floats:
    """Return the bits of all bodies of the steps on the way down, [K]: an answer to every mini-batch.

    Args:
        traffic: of the round.
        work: of each device, or one of all.
        cuts: [K] blocks on the device.
        bits: of a gradient value; one width, or [K].
    """
    every = _of_each(work, cuts)
    widths = np.broadcast_to(np.asarray(bits), (len(every),)).tolist()
    token = np.array([token_bits(each, width) for each, width in zip(every, widths, strict=True)])
    gradient = np.array([each.returns(cut) for each, cut in zip(every, cuts, strict=True)])
    more = np.array([each.exchanges - 1 for each in every])
    answers = more + np.where(more > 0, gradient, 1)  # without a gradient, the loss alone
    body = np.array([HEADER_BITS + _padding(each) for each in every])
    down: Floats = token * (more + gradient) * traffic.tokens + body * answers * traffic.bodies
    return down


def adapters_down(work: Sequence[Workload], cuts: Sequence[int]) -> Floats:
    """Return the bits of adapters down, [K], and of what is as large as they and travels beside them."""
    every = _of_each(work, cuts)
    values = np.array([each.half_gradient_bits(cut) for each, cut in zip(every, cuts, strict=True)], float)
    bodies = np.array([each.adapter_bodies for each in every])
    grids = np.array([each.grid_bits(cut) for each, cut in zip(every, cuts, strict=True)], float)
    found: Floats = bodies * (values + HEADER_BITS * (values > 0)) + grids
    return found


def adapters_up(work: Sequence[Workload], cuts: Sequence[int]) -> Floats:
    """Return the bits of what was trained on the way up, [K]: adapters, or their change, and what is beside them."""
    every = _of_each(work, cuts)
    saved = np.array(
        [
            each.change_saves(each.adapter_values[cut]) + each.grid_bits(cut)
            for each, cut in zip(every, cuts, strict=True)
        ],
        float,
    )
    up: Floats = adapters_down(work, cuts) - saved
    return up
