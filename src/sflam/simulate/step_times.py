"""Measured seconds of a step on this machine, and measured bytes of its bodies.

A mini-batch goes through both halves alone, as on a device of its own: the device's half with its encoding and
decoding, the server's with its own. Nothing is learned. Medians of several turns, after one that warms up.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch

from sflam.codec.bodies import encode
from sflam.codec.messages import GradientFrame, StepFrame
from sflam.codec.quantizer import Packed
from sflam.learn.exchange import Exchange, Position, opened
from sflam.learn.round import SERVER
from sflam.learn.split_fleet import LocalFleet
from sflam.seeds import derive
from sflam.sizes import adapter_body_bytes, adapter_payload_bits

TURNS = 7


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """One mini-batch of ``batch`` samples at one cut.

    Attributes:
        cut: blocks on the device.
        device_s: s of the device's half, forward and backward, encoding and decoding.
        server_s: s of the server's half.
        extra_up: bits of a body up beside codes and side information: header, labels, lengths.
        extra_down: bits of the answer beside them.
        extra_adapter: bits of the body of the device's adapters beside their values; 0 where it has none.
    """

    cut: int
    device_s: float
    server_s: float
    extra_up: int
    extra_down: int
    extra_adapter: int


def step_costs(fleet: LocalFleet, turns: int = TURNS) -> tuple[StepCost, ...]:
    """Measure one device at every cut of the fleet, that with most samples; ascending by cut."""
    cuts = fleet.devices.cuts
    return tuple(
        _measured(
            fleet,
            max((k for k in range(len(cuts)) if cuts[k] == cut), key=lambda k: len(fleet.parts[k])),
            turns,
        )
        for cut in sorted(set(cuts))
    )


def _measured(fleet: LocalFleet, device: int, turns: int) -> StepCost:
    devices, servers, common = fleet.devices, fleet.servers, fleet.exchange
    fleet.seat([device])
    # One of its own: with learn.cache = "server" the fleet's remembers what was sent.
    exchange = Exchange(
        scheme=common.scheme,
        bits=common.bits,
        seed=derive(fleet.seed, "step costs"),
        per_token=common.per_token,
    )
    batch = fleet.examples.take(fleet.parts[device][: fleet.learn.batch])
    where = next(devices.segment.parameters()).device
    at = Position(0, 0, device)
    seeds = {name: derive(fleet.seed, "step costs", name + 1) for name in (device, SERVER)}
    times: list[tuple[float, float]] = []
    kept, devices.kept = devices.kept, None  # what a device keeps is made by its rounds alone
    try:
        for _ in range(1 + turns):
            began = _now(where)
            hidden = devices.forward({device: batch}, seeds)
            up = encode(exchange.step_message(at, hidden[device], batch))
            sent = _now(where)
            step = opened(up, StepFrame)
            frame = exchange.receive_step(step, devices.cuts[device], where)
            [answer] = servers.differentiate([frame], seeds[SERVER])
            down = encode(exchange.answer_message(at, answer, batch.lengths))
            answered = _now(where)
            answered_with = opened(down, GradientFrame)
            back = exchange.receive_answer(answered_with, len(batch), batch.lengths, where)
            if back.gradient is not None:
                devices.differentiate({device: back.gradient})
            times.append((sent - began + _now(where) - answered, answered - sent))
    finally:
        devices.kept = kept
    # A device with few samples has smaller mini-batches; time goes with their rows.
    scale = fleet.learn.batch / len(batch)
    device_s, server_s = (scale * statistics.median(each) for each in np.array(times[1:]).T.tolist())
    return StepCost(
        cut=devices.cuts[device],
        device_s=device_s,
        server_s=server_s,
        extra_up=_beside(up, step.activations),
        extra_down=_beside(down, answered_with.gradient),
        extra_adapter=_beside_adapters(fleet, device),
    )


def _beside(body: bytes, packed: Packed | None) -> int:
    """Return the bits of a body that are neither codes nor side information."""
    if packed is None:
        return 8 * len(body)
    return 8 * len(body) - packed.payload_bits


def _beside_adapters(fleet: LocalFleet, device: int) -> int:
    """Return the bits of a body of adapters that are not their values."""
    stack, names = fleet.devices.segment.stack, fleet.devices.names(device)
    numbers = stack.size(names)
    return 8 * adapter_body_bytes(numbers) - adapter_payload_bits(numbers) if names else 0


def _now(device: torch.device) -> float:
    """Return the time, once the device has done all it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
