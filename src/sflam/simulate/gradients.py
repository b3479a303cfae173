"""What each device's whole model would learn from a mini-batch, with activations quantized or not; nothing is learned.

Both halves run as they do in a round, with real bodies on the way up. Gradients come back as they are, unless it is
their own quantizer that is looked at: what that adds is the same at every width up. Noise is drawn from streams of its
own, optimisers are not stepped, and a round begins by loading the global adapters anyway: training goes on as if
nothing had been measured.

K devices, P trained numbers of both halves of a device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sflam.data.batches import batches
from sflam.learn.examples import Minibatch
from sflam.learn.exchange import Exchange, Position
from sflam.learn.round import SERVER
from sflam.learn.split_fleet import LocalFleet
from sflam.model.adapters import State
from sflam.model.stack import AdapterStack
from sflam.seeds import derive, generator
from sflam.sizes import MAX_BITS

Gradients = dict[int, Tensor]
NOISES = 2**20  # more draws of the rounding than are taken of a mini-batch


class Probe:
    """Differentiates at fixed global adapters.

    Args:
        fleet: whose halves are used; every device has a server, and a copy of its own there or one shared by all.
        state: the global adapters.
        devices: those to look at.
        round: names the random streams.

    Attributes:
        losses: device -> mean loss of the mini-batch that was last differentiated.
    """

    def __init__(self, fleet: LocalFleet, state: State, devices: Sequence[int], round: int) -> None:
        self.fleet, self.devices, self.round = fleet, tuple(devices), round
        self.losses: dict[int, float] = {}
        common = fleet.exchange
        self.exchange = Exchange(
            scheme=common.scheme,
            seed=derive(fleet.seed, "sensitivity"),
            per_token=common.per_token,
        )
        self._state, self._seated = state, tuple[int, ...]()

    def draw(self, number: int) -> dict[int, Minibatch]:
        """Return mini-batch ``number`` of every device: the first of a pass of its own."""
        fleet = self.fleet
        return {
            device: fleet.examples.take(
                batches(
                    fleet.parts[device],
                    fleet.learn.batch,
                    generator(fleet.seed, "sensitivity batches", self.round, number, device),
                    steps=1,
                    lengths=fleet.examples.buckets,
                )[0]
            )
            for device in self.devices
        }

    def gradients(
        self,
        drawn: Mapping[int, Minibatch],
        number: int,
        bits: int = 0,
        noise: int = 0,
        *,
        mirrored: bool = False,
        down: int = 0,
    ) -> Gradients:
        """Return device -> [P], the gradient of its mini-batch's mean loss, in loss per unit of parameter.

        Devices are differentiated as many at a time as the fleet holds.

        Args:
            drawn: of :meth:`draw`.
            number: of the mini-batch; dropout is the same whatever the other arguments are.
            bits: width of the activations; 0 does not quantize them.
            noise: which draw of the rounding.
            mirrored: turn the error of every activation round: x - e where x + e would arrive.
            down: width of the gradients that come back; 0 does not quantize them.
        """
        every, found = tuple(drawn), Gradients()
        some = self.fleet.seats() or max(len(every), 1)
        for first in range(0, len(every), some):
            group = {device: drawn[device] for device in every[first : first + some]}
            self._seat(tuple(group))
            found |= self._of_seated(group, number, bits, noise, mirrored, down)
        return found

    def _seat(self, devices: tuple[int, ...]) -> None:
        """Let ``devices`` hold the global adapters, and what they have of their own."""
        if devices != self._seated:
            self.fleet.seat(devices)
            for device in devices:
                self.fleet.put(device, self._state | self.fleet.personal.of(device))
            self._seated = devices

    def _of_seated(
        self, drawn: Mapping[int, Minibatch], number: int, bits: int, noise: int, mirrored: bool, down: int
    ) -> Gradients:
        """Return :meth:`gradients` of devices that have seats."""
        devices, servers = self.fleet.devices, self.fleet.servers
        where = next(devices.segment.parameters()).device
        seeds = {d: derive(self.exchange.seed, "dropout", self.round, number, d) for d in (*drawn, SERVER)}
        kept, devices.kept = devices.kept, None  # what a device keeps is made by its rounds alone
        try:
            hidden = devices.forward(drawn, seeds)
        finally:
            devices.kept = kept
        exchange = self.exchange.with_bits(dict.fromkeys(drawn, (bits or MAX_BITS, down or MAX_BITS)))
        frames = []
        for device, batch in drawn.items():
            at = Position(self.round, number * NOISES + noise, device)
            message = exchange.step_message(at, hidden[device], batch)
            frame = exchange.receive_step(message, devices.cuts[device], where)
            if not bits or mirrored:
                exact = hidden[device].to(frame.hidden)
                frame = replace(frame, hidden=2 * exact - frame.hidden if bits else exact)
            frames.append(frame)
        # A copy that serves several devices holds the gradient of all of them at once: then one after another.
        shared = any(trunk.shared for trunk in servers.trunks.values())
        back: dict[int, Tensor] = {}
        served: Gradients = {}
        for group in [[frame] for frame in frames] if shared else [frames]:
            answers = servers.differentiate(group, seeds[SERVER])
            self.losses |= {answer.device: answer.loss for answer in answers}
            for answer in answers:
                if down and answer.gradient is not None:
                    at = Position(self.round, number * NOISES + noise, answer.device)
                    batch = drawn[answer.device]
                    sent = exchange.answer_message(at, answer, batch.lengths)
                    answer = exchange.receive_answer(sent, len(batch), batch.lengths, where)
                if answer.gradient is not None:
                    back[answer.device] = answer.gradient
            served |= {frame.device: self._served(frame.device) for frame in group}
        devices.differentiate(back)
        own = devices.segment.stack
        return {d: torch.cat([own.gradients(d), served[d]]).detach().cpu() for d in drawn}

    def together(self, weights: Mapping[int, float], gradients: Gradients) -> Tensor:
        """Return the weighted sum [P] of gradients of :meth:`gradients`, all adapters by name, wherever each is cut."""
        start, total = self._starts()
        found = torch.zeros(total, dtype=torch.float64)
        for device, weight in weights.items():
            place = torch.cat([_places(stack, start) for stack in self._stacks(device)])
            found.index_add_(0, place, weight * gradients[device].double())
        return found

    def flat(self, state: State) -> Tensor:
        """Return what ``state`` has [P] of the numbers in :meth:`together`, in its order; 0 for what it has not."""
        start, total = self._starts()
        found = torch.zeros(total, dtype=torch.float64)
        for name, first in start.items():
            if name in state:
                found[first : first + state[name].numel()] = state[name].detach().double().reshape(-1).cpu()
        return found

    def _stacks(self, device: int) -> tuple[AdapterStack, AdapterStack]:
        """Return the stacks of both halves of a device."""
        return self.fleet.devices.segment.stack, self.fleet.servers.trunk_of(device).segment.stack

    def _starts(self) -> tuple[dict[str, int], int]:
        """Return where each name begins among all trained numbers, and how many there are."""
        sizes = {
            name: slot.shape.numel()
            for device in self.devices
            for stack in self._stacks(device)
            for name, slot in stack.slots.items()
        }
        start, total = {}, 0
        for name in sorted(sizes):
            start[name], total = total, total + sizes[name]
        return start, total

    def _served(self, device: int) -> Tensor:
        """Return a copy of the gradient of what is trained for a device at its server."""
        trunk = self.fleet.servers.trunk_of(device)
        return trunk.segment.stack.gradients(trunk.copy_of(device)).clone()


def _places(stack: AdapterStack, start: Mapping[str, int]) -> Tensor:
    """Return where each number of a row of the stack [P] is among all trained numbers."""
    found = torch.empty(sum(slot.shape.numel() for slot in stack.slots.values()), dtype=torch.int64)
    for name, slot in stack.slots.items():
        found[slot.columns] = torch.arange(start[name], start[name] + slot.shape.numel())
    return found
