"""The trunk at work: arrivals of many devices in one step, in the thread that runs the rounds.

With labels on the devices a forward holds its graph until the gradients of all its devices have come; one that stays
away meanwhile is left out of the round.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from sflam.codec.bodies import encode
from sflam.codec.legs import DOWN, HEAD_DOWN
from sflam.codec.messages import Message, StepFrame, TokenFrame
from sflam.codec.quantizer import Packed
from sflam.learn.exchange import Exchange, Position
from sflam.learn.round import SERVER
from sflam.learn.server import Frame, Trunk
from sflam.learn.settings.schedule import Moment
from sflam.learn.steps import Steps
from sflam.seeds import derive
from sflam.serve.dispatch import Dispatch, Request


class Worker:
    """Computes what arrives during one round.

    Args:
        dispatch: where it arrives.
        trunk: the server half.
        exchange: how bodies become tensors.
        cuts: blocks each device keeps.
    """

    def __init__(self, dispatch: Dispatch, trunk: Trunk, exchange: Exchange, cuts: Mapping[int, int]) -> None:
        self.dispatch, self.trunk, self.exchange, self.cuts = dispatch, trunk, exchange, cuts
        self.where = next(trunk.segment.parameters()).device
        self.busy = 0.0
        """Seconds of computing in the round."""
        self.passes: list[tuple[int, ...]] = []
        """Of the round: the step of each pass and the devices in it, where one copy serves all."""

    def serve(self, round: int, attempt: int, devices: tuple[int, ...]) -> Steps:
        """Answer everything until the round is over; return what was done.

        With labels on the devices, the devices report the losses.
        """
        done = Steps(samples=dict.fromkeys(devices, 0), device_losses=dict.fromkeys(devices, 0.0))
        self.busy, self.passes = 0.0, []
        with self.dispatch.looked() as session:
            steps = {device: seat.length(session.legs) for device, seat in session.seats.items()}
        while arrivals := self.dispatch.collect():
            began = time.perf_counter()
            self.trunk.pace({a.device: Moment(round, a.step, steps[a.device]) for a in arrivals})
            if self.trunk.shared:
                self.passes.append((arrivals[0].step, *(arrival.device for arrival in arrivals)))
            if self.dispatch.session.legs == 1:
                self._step(round, attempt, arrivals, done)
            else:
                self._at_home(round, attempt, arrivals, done)
            self.busy += time.perf_counter() - began
        return done

    def _step(self, round: int, attempt: int, arrivals: list[Request], done: Steps) -> None:
        frames = [self._frame(arrival) for arrival in arrivals]
        answers = self.trunk.step(frames, self._seed(round, arrivals))
        for arrival, frame, answer in zip(arrivals, frames, answers, strict=True):
            if not math.isfinite(answer.loss) or not _finite(answer.gradient):
                self._diverged(arrival)
                continue
            at = Position(round, arrival.step, arrival.device)
            message = self.exchange.answer_message(at, answer, frame.lengths)
            done.learned(arrival.device, answer.loss, len(frame.hidden))
            body = self._count(done, arrival, message, message.gradient)
            self.dispatch.answer(arrival, attempt, body)

    def _at_home(self, round: int, attempt: int, arrivals: list[Request], done: Steps) -> None:
        frames = {arrival.device: self._frame(arrival) for arrival in arrivals}
        at = {a.device: Position(round, a.step, a.device) for a in arrivals}
        last = self.trunk.forward(list(frames.values()), self._seed(round, arrivals))
        for arrival in arrivals:
            device = arrival.device
            if not _finite(last[device]):
                self._diverged(arrival)
                continue
            message = self.exchange.token_message(at[device], HEAD_DOWN, last[device], frames[device].lengths)
            done.samples[device] += len(frames[device].hidden)
            body = self._count(done, arrival, message, message.tokens)
            self.dispatch.answer(arrival, attempt, body)
        began = time.perf_counter()
        back = {a.device: a for a in self.dispatch.collect(1, tuple(frames))}
        self.busy -= time.perf_counter() - began  # waiting is no computing
        wanted: dict[int, Tensor] = {}
        for device, frame in frames.items():
            if device not in back:
                self.dispatch.drop(
                    device, f"device {device} stayed away in the middle of a step; wait for the next round"
                )
                wanted[device] = torch.zeros_like(last[device])
                continue
            answered = back[device].message
            assert isinstance(answered, TokenFrame)
            rows = len(frame.hidden)
            wanted[device] = self.exchange.receive_tokens(answered.tokens, rows, frame.lengths, self.where)
            done.count(device, back[device].body, answered.tokens, up=True)
        for device, gradient in self.trunk.backward(wanted).items():
            if device not in back:
                continue
            if not _finite(gradient):
                self._diverged(back[device])
                continue
            body = b""
            if gradient is not None:
                message = self.exchange.token_message(at[device], DOWN, gradient, frames[device].lengths)
                body = encode(message)
                done.count(device, body, message.tokens, up=False)
            self.dispatch.answer(back[device], attempt, body)

    def _frame(self, arrival: Request) -> Frame:
        assert isinstance(arrival.message, StepFrame)
        return self.exchange.receive_step(arrival.message, self.cuts[arrival.device], self.where)

    def _count(self, done: Steps, arrival: Request, answer: Message, tokens: Packed | None) -> bytes:
        """Count a step's first exchange, whose answer carries ``tokens``; return the body of the answer."""
        assert isinstance(arrival.message, StepFrame)
        body = encode(answer)
        done.device_steps += 1
        done.count(arrival.device, arrival.body, arrival.message.activations, up=True)
        done.count(arrival.device, body, tokens, up=False)
        return body

    def _diverged(self, arrival: Request) -> None:
        self.dispatch.drop(
            arrival.device,
            f"what device {arrival.device} trains is no longer finite; lower learn.lr or set learn.clip",
        )

    def _seed(self, round: int, arrivals: list[Request]) -> int:
        """Return the seed of the dropout of a pass: that of its earliest step."""
        step = min(arrival.step for arrival in arrivals)
        return derive(self.exchange.seed, "dropout", round, step, SERVER)


def _finite(tensor: Tensor | None) -> bool:
    return tensor is None or bool(tensor.isfinite().all())
