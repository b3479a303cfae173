"""The algorithm: quantized split federated fine-tuning (SFLAM, arXiv 2504.09114).

    for every round:
        0. the fleet looks at the network and plans, where it does
        1. the devices of the round download the adapters of their first blocks
        2. for every local step, all devices at once:
           a. device:  forward to the cut, quantize the activations, send them with the labels
           b. server:  dequantize; forward, loss, backward; update this device's own copy of the adapters
           c. server:  quantize the gradient at the cut, send it back
           d. device:  dequantize; backward to the first block; update its adapters
        3. adapters of both sides are averaged, weighted by samples
        4. the whole model is evaluated, when it is due: on validation samples where there are any
        5. the fleet adds to the record what only it knows: what the round cost, or really took

A fleet decides how devices are reached; :func:`local_steps` is step 2 for devices and server in one process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from sflam.codec.bodies import encode
from sflam.codec.messages import GradientFrame, StepFrame
from sflam.learn.device import Devices
from sflam.learn.evaluate import Score
from sflam.learn.examples import Minibatch
from sflam.learn.exchange import Exchange, Position, opened
from sflam.learn.fleet import Fleet
from sflam.learn.server import Server
from sflam.learn.settings.schedule import Moment
from sflam.learn.steps import Steps
from sflam.model.adapters import State
from sflam.records.history import TEST, RoundRecord, scored
from sflam.seeds import derive

Batches = Mapping[int, Sequence[Callable[[], Minibatch] | None]]
"""Device -> its mini-batches, made when their step comes; None where it has no rows in a step."""
Passes = Sequence[Sequence[int]]
"""The local steps of a round in order: of each, its number and the devices in it."""
SERVER = -1
"""Stands where a device's index would, in the names of the server's random streams."""


def train(
    fleet: Fleet,
    state: State,
    evaluate: Callable[[State], Score],
    rounds: range,
    every: int = 1,
    part: str = TEST,
) -> Iterator[tuple[RoundRecord, State]]:
    """Run the rounds; after each, yield what happened and the new global adapters.

    Args:
        fleet: reaches the devices.
        state: the global adapters to begin with.
        evaluate: scores global adapters.
        rounds: the numbers of the rounds to run.
        every: evaluate after every so many rounds, and after the last; 0 only after the last.
        part: of the data that ``evaluate`` scores on: ``test``, or ``validation``.
    """
    for number in rounds:
        began = time.perf_counter()
        fleet.before(number, state)  # 0
        devices = fleet.select(number)
        adapters_down = fleet.download(number, devices, state)  # 1
        steps = fleet.local_steps(number, devices)  # 2
        average = fleet.average(number, devices, steps)  # 3
        state = average.state
        trained = time.perf_counter()
        due = number == rounds[-1] or (every and (number + 1) % every == 0)
        score = fleet.score(state, evaluate) if due else None  # 4
        evaluated = time.perf_counter()
        device_samples, device_loss = steps.of_devices()
        record = RoundRecord(
            round=number,
            loss=steps.loss,
            samples=sum(steps.samples.values()),
            device_steps=steps.device_steps,
            bytes_up=steps.bytes_up,
            bytes_down=steps.bytes_down,
            code_bytes=steps.code_bytes,
            saved_bytes=steps.saved_bytes,
            adapter_bytes_up=average.bytes_up,
            adapter_bytes_down=adapters_down + average.bytes_down,
            residual_bytes=average.residual_bytes,
            aggregation_error=average.error,
            seconds=time.perf_counter() - began,
            evaluating_s=evaluated - trained if score else 0.0,
            class_accuracy=score.per_class if score else (),
            metric=score.metric if score else None,
            participants=tuple(sorted(steps.samples)),  # a real network may lose some on the way
            device_samples=device_samples,
            device_loss=device_loss,
            device_moved=tuple(average.moved.get(device) for device in sorted(steps.samples))
            if average.moved
            else (),
            device_class_accuracy=score.per_device if score else (),
            measured=steps.measured,
            secured=average.secured,
            **(scored(part, score.loss, score.accuracy) if score else {}),
        )
        yield fleet.after(record), state  # 5


def each_step(
    number: int, batches: Batches, seed: int, passes: Passes = ()
) -> Iterator[tuple[dict[int, Minibatch], dict[int, Position], dict[int, int]]]:
    """Yield, for every local step, the mini-batch, the position and the dropout seed of each device that takes part.

    Devices with fewer mini-batches have finished; the others go on without them. The server's seed is at ``SERVER``.
    With ``passes`` those devices take those steps, in that order.
    """
    planned = [(step, *batches) for step in range(max(map(len, batches.values()), default=0))]
    for step, *devices in passes or planned:
        mine = {d: batches[d] for d in devices}
        now = {d: take() for d, own in mine.items() if step < len(own) and (take := own[step])}
        at = {d: Position(number, step, d) for d in now}
        yield now, at, {d: derive(seed, "dropout", number, step, d) for d in (*now, SERVER)}


def moments_of(at: Mapping[int, Position], batches: Batches) -> dict[int, Moment]:
    """Return where in the run each device is that is at work, as schedules of the rate count it."""
    return {d: Moment(place.round, place.step, len(batches[d])) for d, place in at.items()}


def local_steps(
    number: int,
    batches: Batches,
    devices: Devices,
    trunk: Server,
    exchange: Exchange,
    passes: Passes = (),
) -> Steps:
    """Run the local steps of one round, devices and server in one process.

    Args:
        number: the round.
        batches: device -> its mini-batches, made when their step comes.
        devices: the device halves.
        trunk: the server half.
        exchange: how what crosses the cut becomes bytes.
        passes: who takes which step; by default every device takes its own.
    """
    done = Steps(samples=dict.fromkeys(batches, 0))
    for now, at, seeds in each_step(number, batches, exchange.seed, passes):
        for side in (devices, trunk):
            side.pace(moments_of(at, batches))
        make_step(now, at, seeds, devices, trunk, exchange, dict.fromkeys(now, done))
        if devices.averages:
            done.averaged(devices.averaged_bytes(), list(batches))
    return done


def make_step(
    now: dict[int, Minibatch],
    at: Mapping[int, Position],
    seeds: Mapping[int, int],
    devices: Devices,
    trunk: Server,
    exchange: Exchange,
    done: Mapping[int, Steps],
) -> None:
    """Make one local step of devices that are answered together, wherever in its round each is.

    Args:
        now: device -> its mini-batch.
        at: where in the run each is.
        seeds: of dropout, of each device and of the server.
        devices, trunk, exchange: as in :func:`local_steps`.
        done: device -> where its step is counted.
    """
    where = next(devices.segment.parameters()).device
    hidden = devices.forward(now, seeds, exchange.unsent(now))  # a
    hidden, now = devices.sent(hidden, now, seeds)
    up = {d: encode(message) for d, message in exchange.step_messages(at, hidden, now).items()}

    sent = {d: opened(up[d], StepFrame) for d in now}  # b
    frames = exchange.receive_steps(list(sent.values()), devices.cuts, where)
    answers = trunk.step(frames, seeds[SERVER])

    down = {d: encode(own) for d, own in exchange.answer_messages(at, answers, now).items()}  # c

    got = {d: opened(down[d], GradientFrame) for d in now}  # d
    back = exchange.receive_answers(list(got.values()), now, where)
    devices.backward({a.device: a.gradient for a in back if a.gradient is not None}, now)

    for a in back:
        done[a.device].learned(a.device, a.loss, len(now[a.device]))
    for d, frame in zip(now, frames, strict=True):
        done[d].count(d, up[d], sent[d].activations, up=True)
        done[d].count(d, down[d], got[d].gradient, up=False)
        done[d].saved_bytes += exchange.saved_bytes(d, frame.hidden, now[d].lengths, sent[d].activations)
        done[d].device_steps += 1
