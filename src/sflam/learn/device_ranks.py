"""A LoRA rank for each device (``fleet.ranks``): the first r_k rows of every A and columns of every B, the rest zero.

The global adapters have rank r = ``model.rank``. On the way down a device gets its first r_k components; on the way up
they are padded with zeros, and averaged at rank r (HetLoRA, Cho et al., arXiv 2401.06432, without its pruning and its
weights by norm), or the mean product is given back in components that are ordered by size (FlexLoRA, Bai et al., arXiv
2402.11505). Components that no device of a round has stay as they are. Every device scales by alpha / r, so that a
component is the same update wherever it is.

Shapes: r rank, i inputs, o outputs, P numbers of a row of a stack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from sflam.learn.adapter_exchange import AdapterCodec, flatten, transfer, unflatten
from sflam.model.adapters import State
from sflam.model.lower_rank import A_ENDS, B_ENDS, first_components
from sflam.model.stack import AdapterStack


class DeviceRanks:
    """The ranks of a fleet's devices.

    Args:
        ranks: r_k of each device; none where all have the model's.
    """

    def __init__(self, ranks: Sequence[int]) -> None:
        self.ranks = tuple(ranks)

    def part(self, device: int, name: str, tensor: Tensor) -> Tensor:
        """Return the view of a tensor that a device has: A [r_k,i], B [o,r_k], anything else as it is."""
        return first_components(name, tensor, self.ranks[device]) if self.ranks else tensor

    def truncated(self, device: int, state: Mapping[str, Tensor]) -> State:
        """Return a state whose adapters have the rank of a device: beyond it they are zero."""
        if not self.ranks:
            return dict(state)
        found = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
        for name, tensor in state.items():
            self.part(device, name, found[name]).copy_(self.part(device, name, tensor))
        return found

    def transfer(
        self,
        round: int,
        device: int,
        samples: int,
        state: State,
        names: Sequence[str],
        codec: AdapterCodec | None = None,
    ) -> tuple[State, int]:
        """Return the named tensors as they arrive, padded to the model's rank, and the bytes of what was sent.

        Grids for the way up go with them, where ``codec`` has any.
        """
        own = self.own(device, state, names)
        side = codec.side(own, names) if codec else None
        received, size = transfer(round, device, samples, own, names, side)
        return self.padded(device, received, state), size

    def upload(
        self,
        codec: AdapterCodec,
        round: int,
        device: int,
        samples: int,
        state: State,
        start: Mapping[str, Tensor],
        names: Sequence[str],
    ) -> tuple[State, int]:
        """Return the named tensors that a device trained as they arrive, padded, and the bytes of what it sent.

        Args:
            codec: how they go up.
            round, device, samples: its number, who trained, on how many samples.
            state: what it trained.
            start: what the round began from.
            names: of what travels; nothing for none.
        """
        if not names:
            return {}, 0
        own, begun = self.own(device, state, names), self.own(device, start, names)
        values = flatten(own, names)
        start_of, side = flatten(begun, names).to(values), codec.side(own, names)
        found, size = codec.up(round, device, samples, values, start_of, side)
        return self.padded(device, unflatten(found, own, names), state), size

    def own(self, device: int, state: Mapping[str, Tensor], names: Sequence[str]) -> State:
        """Return the named tensors as a device has them, of its own rank."""
        return {name: self.part(device, name, state[name]).contiguous() for name in names}

    def padded(self, device: int, own: State, like: Mapping[str, Tensor]) -> State:
        """Return what :meth:`own` returned, with zeros up to the model's rank, which ``like`` has."""
        if not self.ranks:
            return own
        found = {name: torch.zeros_like(like[name]) for name in own}
        for name, tensor in own.items():
            self.part(device, name, found[name]).copy_(tensor)
        return found

    def keep_untouched(
        self,
        states: Mapping[int, State],
        start: Mapping[str, Tensor],
        limited: Callable[[int, str], bool] = lambda device, name: True,
    ) -> None:
        """Give components that no device of a round has the values of its start, in every state; in place.

        Zeros alone would be their average: A and B zero at once have no gradient, and no device could train them again.

        Args:
            states: device of the round -> what it trained, padded.
            start: the global adapters of the round's beginning.
            limited: whether a tensor has the rank of a device; a shared trunk's has the model's.
        """
        if not self.ranks:
            return
        for name in {name for state in states.values() for name in state if name.endswith((A_ENDS, B_ENDS))}:
            holders = [device for device, state in states.items() if name in state]
            if all(limited(device, name) for device in holders):
                top = max(self.ranks[device] for device in holders)
                for device in holders:
                    kept = start[name].clone()
                    has = first_components(name, kept, top)
                    has.copy_(first_components(name, states[device][name], top))
                    states[device][name] = kept

    def beyond(self, stack: AdapterStack, device_of: Mapping[int, int]) -> dict[int, Tensor]:
        """Return row -> what of it is beyond the rank of its device, [P]; empty where ranks are all one.

        ``device_of`` is row -> device.
        """
        if not self.ranks or not stack.slots:
            return {}
        by_rank: dict[int, torch.Tensor] = {}
        for device in device_of.values():
            if self.ranks[device] not in by_rank:
                beyond = by_rank[self.ranks[device]] = torch.ones(
                    stack.size(), dtype=torch.bool, device=stack.values.device
                )
                for name, slot in stack.slots.items():
                    self.part(device, name, beyond[slot.columns].view(slot.shape)).fill_(False)
        return {row: by_rank[self.ranks[device]] for row, device in device_of.items()}
