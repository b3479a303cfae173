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

from collections.abc import Callable, Mapping, Sequence

from sflam.learn.device import Devices
from sflam.learn.examples import Minibatch
from sflam.learn.exchange import DOWN, HEAD_DOWN, HEAD_UP, Exchange
from sflam.learn.fleet import Steps
from sflam.learn.round import SERVER, each_step
from sflam.learn.server import Server
from sflam.seeds import derive


def local_steps_at_home(
    number: int,
    batches: Mapping[int, Sequence[Callable[[], Minibatch]]],
    devices: Devices,
    trunk: Server,
    exchange: Exchange,
) -> Steps:
    """Run the local steps of one round; see :func:`sflam.learn.round.local_steps`."""
    done = Steps(samples=dict.fromkeys(batches, 0))
    where = next(devices.segment.parameters()).device
    for now, at, seeds in each_step(number, batches, exchange.seed):
        hidden = devices.forward(now, seeds, exchange.unsent(now))  # a
        announced = {d: exchange.send_step(at[d], hidden.get(d), now[d], labels=False) for d in now}
        frames = {d: exchange.receive_step(announced[d], devices.cuts[d], where) for d in now}
        sent_first = {d: exchange.packed_in(announced[d]) for d in now}
        for d in now:
            done.count(d, announced[d], sent_first[d], up=True)

        losses: dict[int, float] = {}
        gradients = {}
        # A server that updates one device after another answers one before it hears the next.
        for group in [[d] for d in now] if trunk.one_by_one else [list(now)]:
            last = trunk.forward([frames[d] for d in group], seeds[SERVER])  # b
            sent = {d: exchange.send_tokens(at[d], HEAD_DOWN, last[d], now[d].lengths) for d in group}
            for d in group:
                done.count(d, sent[d], exchange.packed_in(sent[d]), up=False)

            seen = {d: exchange.receive_tokens(sent[d], len(now[d]), now[d].lengths, where) for d in group}
            own = {d: now[d] for d in group}
            heads = devices.finish(trunk.task, own, seen, {d: derive(seeds[d], "head") for d in group})  # c
            sent = {d: exchange.send_tokens(at[d], HEAD_UP, heads[d][1], now[d].lengths) for d in group}
            for d in group:
                done.count(d, sent[d], exchange.packed_in(sent[d]), up=True)

            wanted = {d: exchange.receive_tokens(sent[d], len(now[d]), now[d].lengths, where) for d in group}
            for d, gradient in trunk.backward(wanted).items():  # d
                losses[d] = heads[d][0]
                if gradient is not None:
                    body = exchange.send_tokens(at[d], DOWN, gradient, now[d].lengths)
                    gradients[d] = exchange.receive_tokens(body, len(now[d]), now[d].lengths, where)
                    done.count(d, body, exchange.packed_in(body), up=False)

        devices.backward(gradients)  # e

        for d, loss in losses.items():
            done.learned(d, loss, len(now[d]))
            done.saved_bytes += exchange.saved_bytes(d, frames[d].hidden, now[d].lengths, sent_first[d])
        done.device_steps += len(now)
    return done
