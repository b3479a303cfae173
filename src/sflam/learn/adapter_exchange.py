"""Adapters as real bytes: once a round down to the devices, and up to be averaged. P trained numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sflam.codec.bodies import decode, encode
from sflam.codec.messages import AdapterFrame
from sflam.errors import WireError
from sflam.model.adapters import State


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
    message = decode(body)
    if not isinstance(message, AdapterFrame) or message.values.shape != tuple(like.shape):
        raise WireError(f"a body does not hold the {like.numel()} adapter values agreed; restart the round")
    return torch.from_numpy(message.values.copy()).to(like)


def flatten(state: State, names: Sequence[str]) -> Tensor:
    """Return the named tensors laid end to end, [P]."""
    return torch.cat([state[name].flatten() for name in names])


def unflatten(values: Tensor, like: State, names: Sequence[str]) -> State:
    """Return [P] values as the named tensors again."""
    parts = torch.split(values, [like[name].numel() for name in names])
    return {name: part.view(like[name].shape) for name, part in zip(names, parts, strict=True)}
