"""The trunks at work: arrivals of many devices in one step, in the thread that runs the rounds.

With labels on the devices a forward holds its graph until the gradients of all its devices have come; one that stays
away meanwhile is left out of the round.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sflam.codec.bodies import encode
from sflam.codec.legs import DOWN, HEAD_DOWN
from sflam.codec.messages import Message, StepFrame, TokenFrame
from sflam.codec.quantizer import Packed
from sflam.errors import WireError
from sflam.learn.edge_servers import Servers, seed_of
from sflam.learn.exchange import Exchange, Position
from sflam.learn.finite import Spoiled, is_finite
from sflam.learn.frames import Answer, Frame
from sflam.learn.round import SERVER
from sflam.learn.server import Trunk
from sflam.learn.settings.schedule import Moment
from sflam.learn.steps import Steps
from sflam.model.adapters import State
from sflam.seeds import derive
from sflam.serve.dispatch import Dispatch, Request


@dataclass(frozen=True, eq=False)
class OpenRound:
    """The round that a device is in.

    Attributes:
        round: its number.
        attempt: of its opening.
        length: steps in it.
        done: counts what is done in it.
    """

    round: int
    attempt: int
    length: int
    done: Steps


@dataclass(frozen=True, eq=False)
class HomeStep:
    """A step with labels on the devices, between its two exchanges.

    Attributes:
        frames: device -> what it sent.
        at: device -> where it is.
        last: device -> the activations that it was answered.
    """

    frames: dict[int, Frame]
    at: dict[int, Position]
    last: dict[int, Tensor]


class Worker:
    """Computes what arrives during one round.

    Args:
        dispatch: where it arrives.
        servers: the trunks; devices of different ones make their steps apart.
        exchange: how bodies become tensors.
        cuts: blocks each device keeps.
    """

    def __init__(
        self, dispatch: Dispatch, servers: Servers, exchange: Exchange, cuts: Mapping[int, int]
    ) -> None:
        self.dispatch, self.exchange = dispatch, exchange
        self.place(servers, cuts)
        self.busy = 0.0
        """Seconds of computing in the round."""
        self.lost: tuple[str, ...] = ()
        """Names of trunk servers that the round lost: none, as the trunks are here."""
        self.passes: list[tuple[int, ...]] = []
        """Of the round: the step of each pass and the devices in it, where one copy serves all."""

    def place(self, servers: Servers, cuts: Mapping[int, int]) -> None:
        """Serve by these trunks, devices with these cuts, from the next round on."""
        self.servers, self.cuts = servers, cuts
        trunks = list(servers.trunks.values())
        # A segment has no parameters where devices have every block.
        self.where = trunks[0].segment.stack.values.device
        for trunk in trunks:
            trunk.guarded = True

    def prepare(
        self, round: int, attempt: int, devices: Sequence[int], samples: Mapping[int, int], start: State
    ) -> bool:
        """Return whether a round can open: the trunks are here, and begin where the fleet has put them."""
        return True

    def serve(self, round: int, attempt: int, devices: tuple[int, ...]) -> Steps:
        """Answer everything until the round is over; return what was done.

        With labels on the devices, the devices report the losses.
        """
        done = Steps(samples=dict.fromkeys(devices, 0), device_losses=dict.fromkeys(devices, 0.0))
        self.busy, self.passes = 0.0, []
        with self.dispatch.looked() as session:
            rounds = {
                device: OpenRound(round, attempt, seat.length(session.legs), done)
                for device, seat in session.seats.items()
            }
        while arrivals := self.dispatch.collect():
            self.answer(arrivals, rounds)
        return done

    def answer(self, arrivals: Sequence[Request], rounds: Mapping[int, OpenRound]) -> None:
        """Compute and answer what has arrived, all of it in one pass at each server.

        Args:
            arrivals: at least one; of a device at most one.
            rounds: device -> the round that it is in.
        """
        began = time.perf_counter()
        together = self._seed(arrivals, rounds)
        make = self._step if self.dispatch.session.legs == 1 else self._at_home
        for server in sorted({self.servers.server_of[arrival.device] for arrival in arrivals}):
            own = [a for a in arrivals if self.servers.server_of[a.device] == server]
            trunk = self.servers.trunks[server]
            at = {a.device: rounds[a.device] for a in own}
            trunk.pace({a.device: Moment(at[a.device].round, a.step, at[a.device].length) for a in own})
            make(trunk, own, at, seed_of(together, server))
        self.busy += time.perf_counter() - began

    def _step(
        self, trunk: Trunk, arrivals: list[Request], rounds: Mapping[int, OpenRound], seed: int
    ) -> None:
        frames, arrivals = self._frames(arrivals)
        answers: list[Answer] = []
        while arrivals:
            try:
                answers = trunk.step([frames[arrival.device] for arrival in arrivals], seed)
                break
            except Spoiled as spoiled:  # it has changed nothing: the others make the step without them
                arrivals = self._without(arrivals, spoiled.devices)
        self._passed(trunk, arrivals)
        for arrival, answer in zip(arrivals, answers, strict=bool(arrivals)):
            frame, own = frames[arrival.device], rounds[arrival.device]
            at = Position(own.round, arrival.step, arrival.device)
            message = self.exchange.answer_message(at, answer, frame.lengths)
            own.done.learned(arrival.device, answer.loss, len(frame.hidden))
            body = self._count(own.done, arrival, message, message.gradient)
            self.dispatch.answer(arrival, own.attempt, body)

    def _at_home(
        self, trunk: Trunk, arrivals: list[Request], rounds: Mapping[int, OpenRound], seed: int
    ) -> None:
        step = self._forward(trunk, arrivals, rounds, seed)
        if step is None:
            return
        began = time.perf_counter()
        back = {a.device: a for a in self.dispatch.collect(1, tuple(step.frames))}
        self.busy -= time.perf_counter() - began  # waiting is no computing
        self._returned(trunk, step, back, rounds)

    def _forward(
        self, trunk: Trunk, arrivals: list[Request], rounds: Mapping[int, OpenRound], seed: int
    ) -> HomeStep | None:
        """Answer the first exchange of a step with labels on the devices; None where no device is left in it."""
        frames, arrivals = self._frames(arrivals)
        at = {a.device: Position(rounds[a.device].round, a.step, a.device) for a in arrivals}
        last: dict[int, Tensor] = {}
        while arrivals:
            last = trunk.forward(list(frames.values()), seed)
            spoiling = [device for device in frames if not is_finite(last[device])]
            if not spoiling:
                break
            trunk.forget()
            arrivals = self._without(arrivals, spoiling)
            frames = {arrival.device: frames[arrival.device] for arrival in arrivals}
        if not arrivals:
            return None
        self._passed(trunk, arrivals)
        for arrival in arrivals:
            device = arrival.device
            own = rounds[device]
            message = self.exchange.token_message(at[device], HEAD_DOWN, last[device], frames[device].lengths)
            own.done.samples[device] += len(frames[device].hidden)
            body = self._count(own.done, arrival, message, message.tokens)
            self.dispatch.answer(arrival, own.attempt, body)
        return HomeStep(frames, at, last)

    def _returned(
        self, trunk: Trunk, made: HomeStep, back: dict[int, Request], rounds: Mapping[int, OpenRound]
    ) -> None:
        """Answer the second exchange, of the devices that came ``back``; the others of the step are dropped."""
        frames, at, last = made.frames, made.at, made.last
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
            rounds[device].done.count(device, back[device].body, answered.tokens, up=True)
        for device, gradient in self._backward(trunk, wanted, back).items():
            if device not in back:
                continue
            body = b""
            if gradient is not None:
                message = self.exchange.token_message(at[device], DOWN, gradient, frames[device].lengths)
                body = encode(message)
                rounds[device].done.count(device, body, message.tokens, up=False)
            self.dispatch.answer(back[device], rounds[device].attempt, body)

    def _backward(
        self, trunk: Trunk, wanted: dict[int, Tensor], back: dict[int, Request]
    ) -> dict[int, Tensor | None]:
        """Return the gradients for the devices; one of whose own nothing finite can be learnt teaches nothing."""
        while back:
            try:
                return trunk.backward(wanted)
            except Spoiled as spoiled:
                spoiling = set(spoiled.devices) & back.keys() or set(back)
                self._without(list(back.values()), spoiling)
                for device in spoiling:
                    del back[device]
                    wanted[device] = torch.zeros_like(wanted[device])
        trunk.forget()
        return {}

    def _without(self, arrivals: list[Request], spoiling: Collection[int]) -> list[Request]:
        """Drop the devices that spoil a step; return the arrivals of the others."""
        for arrival in arrivals:
            if arrival.device in spoiling:
                self._diverged(arrival)
        return [arrival for arrival in arrivals if arrival.device not in spoiling]

    def _passed(self, trunk: Trunk, arrivals: list[Request]) -> None:
        """Note whose rows came together, where one copy serves all."""
        if trunk.shared and arrivals:
            self.passes.append((arrivals[0].step, *(arrival.device for arrival in arrivals)))

    def _frames(self, arrivals: list[Request]) -> tuple[dict[int, Frame], list[Request]]:
        """Return device -> what arrived, and the arrivals; one that does not fit what is kept of its device is none."""
        frames = {}
        for arrival in arrivals:
            assert isinstance(arrival.message, StepFrame)
            cut = self.cuts[arrival.device]
            try:
                frames[arrival.device] = self.exchange.receive_step(arrival.message, cut, self.where)
            except WireError as error:
                self.dispatch.drop(arrival.device, str(error))
        return frames, [arrival for arrival in arrivals if arrival.device in frames]

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

    def _seed(self, arrivals: Sequence[Request], rounds: Mapping[int, OpenRound]) -> int:
        """Return the seed of the dropout of a pass: that of its earliest step."""
        step, round = min((arrival.step, rounds[arrival.device].round) for arrival in arrivals)
        return derive(self.exchange.seed, "dropout", round, step, SERVER)
