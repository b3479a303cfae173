"""Labels at home, the U-shape: head and loss stay on the device, two exchanges a step.

    for every local step, all devices at once:
       a. device:  forward to the cut, quantize the activations, send them without labels
       b. server:  dequantize; forward to the last block; quantize what comes out, send it back
       c. device:  dequantize; head, loss, backward through the head; quantize the gradient, send it
       d. server:  dequantize; backward; update this device's own copy of the adapters; send the gradient at the cut
       e. device:  dequantize; backward to the first block; update its adapters and its head

The server never sees a label, a logit or a loss. The rest of the round is that of :mod:`sflam.learn.round`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sflam.codec.bodies import encode
from sflam.codec.legs import DOWN, HEAD_DOWN, HEAD_UP, UPWARD
from sflam.codec.messages import StepFrame, TokenFrame
from sflam.codec.quantizer import Packed
from sflam.learn.device import Devices
from sflam.learn.examples import Minibatch
from sflam.learn.exchange import Exchange, Position, opened
from sflam.learn.round import SERVER, Batches, Passes, each_step, moments_of
from sflam.learn.server import Server
from sflam.learn.steps import Steps
from sflam.seeds import derive


def local_steps_at_home(
    number: int,
    batches: Batches,
    devices: Devices,
    trunk: Server,
    exchange: Exchange,
    passes: Passes = (),
    silent: Mapping[int, int] | None = None,
) -> Steps:
    """Run the local steps of one round; see :func:`sflam.learn.round.local_steps`.

    Args:
        number, batches, devices, trunk, exchange, passes: as there.
        silent: device -> the step in which it was heard of for the last time, in its first exchange: its rows are in
            the trunk's forward, and count for nothing in the backward.
    """
    done = Steps(samples=dict.fromkeys(batches, 0))
    where = next(devices.segment.parameters()).device
    for now, at, seeds in each_step(number, batches, exchange.seed, passes):
        for side in (devices, trunk):
            side.pace(moments_of(at, batches))
        hidden = devices.forward(now, seeds, exchange.unsent(now))  # a
        hidden, now = devices.sent(hidden, now, seeds)
        messages = exchange.step_messages(at, hidden, now, labels=False)
        announced = {d: encode(message) for d, message in messages.items()}
        sent = {d: opened(announced[d], StepFrame) for d in now}
        frames = dict(zip(now, exchange.receive_steps(list(sent.values()), devices.cuts, where), strict=True))
        for d in now:
            done.count(d, announced[d], sent[d].activations, up=True)

        losses: dict[int, float] = {}
        gradients: dict[int, Tensor] = {}
        # A server that updates one device after another answers one before it hears the next.
        for group in [[d] for d in now] if trunk.one_by_one else [list(now)]:
            last = trunk.forward([frames[d] for d in group], seeds[SERVER])  # b
            seen = _cross(HEAD_DOWN, {d: last[d] for d in group}, at, now, exchange, done)
            lost = {d for d in group if (silent or {}).get(d) == at[d].step}
            own = {d: now[d] for d in group if d not in lost}
            seen = {d: seen[d] for d in own}
            heads = devices.finish(trunk.task, own, seen, {d: derive(seeds[d], "head") for d in group})  # c
            wanted = _cross(HEAD_UP, {d: heads[d][1] for d in own}, at, now, exchange, done)
            back = trunk.backward(wanted | {d: torch.zeros_like(last[d]) for d in lost})  # d
            losses |= {d: heads[d][0] for d in own}
            back_sent = {d: gradient for d, gradient in back.items() if gradient is not None and d in own}
            gradients |= _cross(DOWN, back_sent, at, now, exchange, done)

        devices.backward(gradients, {d: now[d] for d in losses})  # e
        if devices.averages:
            done.averaged(devices.averaged_bytes(), list(batches))

        for d, loss in losses.items():
            done.learned(d, loss, len(now[d]))
            done.saved_bytes += exchange.saved_bytes(d, frames[d].hidden, now[d].lengths, sent[d].activations)
        done.device_steps += len(now)
    return done


def _cross(
    leg: int,
    x: Mapping[int, Tensor],
    at: Mapping[int, Position],
    batches: Mapping[int, Minibatch],
    exchange: Exchange,
    done: Steps,
) -> dict[int, Tensor]:
    """Send device -> [B,T,d] tokens one way, as bytes; count the bodies and return what arrives."""
    got: dict[int, Packed] = {}
    for device, sent in exchange.pack_each(leg, {d: (at[d], x[d], batches[d].lengths) for d in x}).items():
        place = at[device]
        body = encode(TokenFrame(place.round, place.step, device, sent))
        got[device] = opened(body, TokenFrame).tokens
        done.count(device, body, got[device], up=leg in UPWARD)
    return exchange.unpack_each(got, batches, next(iter(x.values())).device) if x else {}
