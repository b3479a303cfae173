"""Adapters as real bytes: once a round down to the devices, and up to be averaged. P trained numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sflam.codec.adapter_change import decode_change, encode_change
from sflam.codec.bodies import decode, encode
from sflam.codec.common_grid import WIDEST, grids, is_grid
from sflam.codec.grid import restore
from sflam.codec.guard import Guard
from sflam.codec.legs import ADAPTERS
from sflam.codec.messages import AdapterFrame, ChangeFrame, Message
from sflam.codec.quantizer import Words
from sflam.errors import WireError
from sflam.learn.screening import Rounding
from sflam.model.adapters import State
from sflam.sizes import ADAPTER_GROUP, FLOAT_BITS

SPARE = 2.0
"""How much farther values may change than in the last round, with one grid for all."""


class AdapterCodec:
    """How adapters go up: as floats, or as their change since the round began.

    Args:
        bits: of a value: 1..16 for the change, more for floats.
        seed: of the run.
        common: whether all devices of a round have one grid, set from what those of the last round sent.
        guard: what devices do to what they trained before it is encoded; None leaves it as it is.
    """

    def __init__(
        self, bits: int = FLOAT_BITS, seed: int = 0, *, common: bool = False, guard: Guard | None = None
    ) -> None:
        self.guard = guard if guard and guard.moves_adapters else None
        self.bits, self.seed, self.common = bits, seed, common and bits < FLOAT_BITS
        self.reach: dict[str, float] = {}
        """Tensor -> how far its values may change in the next round."""

    @property
    def floats(self) -> bool:
        """Whether they go up as they are."""
        return self.bits >= FLOAT_BITS

    def side(self, own: Mapping[str, Tensor], names: Sequence[str]) -> Words | None:
        """Return the grids [G, 2] of a device's named tensors, all zero before there are any; None for its own."""
        if not self.common or not names:
            return None
        each = [np.full(own[name].numel(), self.reach.get(name, 0.0), np.float32) for name in names]
        values = np.concatenate(each)
        padded = np.pad(values, (0, -len(values) % ADAPTER_GROUP))
        return grids(padded.reshape(-1, ADAPTER_GROUP).max(axis=1), self.bits)

    def up(
        self,
        round: int,
        device: int,
        samples: int,
        values: Tensor,
        start: Tensor,
        side: Words | None = None,
    ) -> tuple[Tensor, int]:
        """Return trained values [P] as they arrive at the server, and the bytes of their body.

        Args:
            round: its number.
            device: who trained them.
            samples: on how many.
            values: [P].
            start: [P], what the device was sent.
            side: [G, 2], the grids it was sent.
        """
        if self.guard:
            own, begun = (each.detach().cpu().numpy() for each in (values, start))
            values = torch.from_numpy(self.guard.adapters(own, begun, round, device)).to(values)
        if self.floats:
            body = send_adapters(round, device, samples, values)
            return receive_adapters(body, values), len(body)
        own, begun = (each.detach().cpu().numpy() for each in (values, start))
        at = {"seed": self.seed, "round": round, "device": device}
        change = encode_change(own, begun, self.bits, side=side, **at)
        body = encode(ChangeFrame(round, device, samples=samples, change=change))
        return arrived(decode(body), start), len(body)

    def rounding(self, own: Mapping[str, Tensor], names: Sequence[str]) -> Rounding | None:
        """Return how far rounding and noise can move what a device sends of its named tensors; None for neither."""
        noise = self.guard.farthest(ADAPTERS) if self.guard else 0.0
        if noise:
            count = sum(own[name].numel() for name in names)
            return Rounding((1 << self.bits) - 1, noise=noise, shake=noise * float(np.sqrt(count)))
        if self.floats:
            return None
        levels, side = (1 << self.bits) - 1, self.side(own, names)
        if side is None or not is_grid(side):
            return Rounding(levels)
        steps = restore(side, self.bits).step.astype(float)
        return Rounding(levels, float(steps.max()), float(np.sqrt(ADAPTER_GROUP * np.square(steps).sum())))

    def follow(
        self, states: Mapping[int, State], start: State, names: Callable[[int], Sequence[str]]
    ) -> None:
        """Set the next round's grids by what devices of this one sent.

        Args:
            states: device -> tensors.
            start: what the round began from.
            names: returns those that a device sends.
        """
        moved: dict[str, float] = {}
        for device, state in states.items() if self.common else ():
            for name in names(device):
                if name in state:
                    far = float((state[name] - start[name].to(state[name])).abs().max())
                    moved[name] = max(far, moved.get(name, 0.0))
        self.reach |= {name: min(SPARE * far, WIDEST) for name, far in moved.items()}

    def state(self) -> dict[str, Any]:
        """Return what must survive a crash between rounds."""
        return {"adapter_reach": dict(self.reach)} if self.reach else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        self.reach = dict(state.get("adapter_reach", {}))


def arrived(message: Message, start: Tensor) -> Tensor:
    """Return the trained values [P] that a device's message carries, on the device and in the type of ``start`` [P].

    Raises:
        WireError: it carries something else, or another number of them.
    """
    if isinstance(message, ChangeFrame):
        return torch.from_numpy(decode_change(message.change, start.detach().cpu().numpy())).to(start)
    if not isinstance(message, AdapterFrame) or message.values.shape != tuple(start.shape):
        raise WireError(f"a body does not hold the {start.numel()} adapter values agreed; restart the round")
    return torch.from_numpy(message.values.copy()).to(start)


def transfer(
    round: int, device: int, samples: int, state: State, names: Sequence[str], side: Words | None = None
) -> tuple[State, int]:
    """Return the named tensors as they arrive on the other side, and the bytes of their body; none for no names.

    ``side`` are grids that go with them.
    """
    if not names:
        return {}, 0
    values = flatten(state, names)
    body = send_adapters(round, device, samples, values, side)
    return unflatten(receive_adapters(body, values), state, names), len(body)


def send_adapters(round: int, device: int, samples: int, values: Tensor, side: Words | None = None) -> bytes:
    """Return the body of a device's adapters [P], in the order of the segment's slots; ``side`` are its grids."""
    return encode(
        AdapterFrame(round, device, samples=samples, values=values.detach().cpu().numpy(), grid=side)
    )


def receive_adapters(body: bytes, like: Tensor) -> Tensor:
    """Return the adapters [P] a body carries, on the device and in the type of ``like`` [P]."""
    return arrived(decode(body), like)


def flatten(state: State, names: Sequence[str]) -> Tensor:
    """Return the named tensors laid end to end, [P]."""
    return torch.cat([state[name].flatten() for name in names])


def unflatten(values: Tensor, like: State, names: Sequence[str]) -> State:
    """Return [P] values as the named tensors again."""
    parts = torch.split(values, [like[name].numel() for name in names])
    return {name: part.view(like[name].shape) for name, part in zip(names, parts, strict=True)}
