"""Adapters as real bytes: once a round down to the devices, and up to be averaged. P trained numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sflam.codec.adapter_change import decode_change, encode_change
from sflam.codec.bodies import decode, encode
from sflam.codec.messages import AdapterFrame, ChangeFrame, Message
from sflam.errors import WireError
from sflam.model.adapters import State
from sflam.sizes import FLOAT_BITS


@dataclass(frozen=True)
class AdapterCodec:
    """How adapters go up: as floats, or as their change since the round began.

    Attributes:
        bits: of a value: 1..16 for the change, more for floats.
        seed: of the run.
    """

    bits: int = FLOAT_BITS
    seed: int = 0

    @property
    def floats(self) -> bool:
        """Whether they go up as they are."""
        return self.bits >= FLOAT_BITS

    def up(self, round: int, device: int, samples: int, values: Tensor, start: Tensor) -> tuple[Tensor, int]:
        """Return trained values [P] as they arrive at the server, and the bytes of their body.

        Args:
            round: its number.
            device: who trained them.
            samples: on how many.
            values: [P].
            start: [P], what the device was sent.
        """
        if self.floats:
            body = send_adapters(round, device, samples, values)
            return receive_adapters(body, values), len(body)
        own, begun = (each.detach().cpu().numpy() for each in (values, start))
        change = encode_change(own, begun, self.bits, seed=self.seed, round=round, device=device)
        body = encode(ChangeFrame(round, device, samples=samples, change=change))
        return arrived(decode(body), start), len(body)


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


def transfer(round: int, device: int, samples: int, state: State, names: Sequence[str]) -> tuple[State, int]:
    """Return the named tensors as they arrive on the other side, and the bytes of their body; none for no names."""
    if not names:
        return {}, 0
    values = flatten(state, names)
    body = send_adapters(round, device, samples, values)
    return unflatten(receive_adapters(body, values), state, names), len(body)


def send_adapters(round: int, device: int, samples: int, values: Tensor) -> bytes:
    """Return the body of a device's adapters [P], in the order of the segment's slots."""
    return encode(AdapterFrame(round, device, samples=samples, values=values.detach().cpu().numpy()))


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
