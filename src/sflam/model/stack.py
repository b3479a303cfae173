"""The trained numbers of K copies of one segment, side by side.

One matrix ``values [K, P]`` holds everything: row k is all that device k trains, and every adapter tensor is a
leaf view ``[K, *shape]`` into its columns, which the forward uses. The optimiser sees another set of leaf views,
one per row. So one batched forward and backward serves all devices, while each keeps its own optimiser state, and
a row without a gradient does not move. A pass of some rows only works on a copy of those, and its gradients come back
to their rows: what it costs does not depend on K.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Slot:
    """Where one named tensor lives in a row: ``columns`` of the matrix, seen as ``shape``."""

    columns: slice
    shape: torch.Size


@dataclass(frozen=True, eq=False)
class Gathered:
    """Copies of the rows that a pass uses, side by side.

    Attributes:
        places: row of the stack -> its place among them.
        tensors: leaf view ``[K, *shape]`` of the stack -> the same of the gathered rows alone, ``[A, *shape]``.
    """

    places: dict[int, int]
    tensors: dict[Tensor, Tensor]


class _Gather(torch.autograd.Function):
    """Some rows of a stack, [A, P]; their gradients are added to the stack's own, row by row."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, stack: AdapterStack, index: Tensor) -> Tensor:
        ctx.stack, ctx.index = stack, index
        return stack.values.detach().index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        ctx.stack.grads.index_add_(0, ctx.index, gradients[0])
        return gradients[0].new_zeros(()), None, None


class AdapterStack:
    """``K`` rows of trained numbers with named slots.

    Attributes:
        values: [K, P] the numbers.
        grads: [K, P] their gradients of the current step.
        slots: name -> Slot.
        beyond: [K, P] what stays zero in each row and never moves; None for nothing.
        tensors: name -> [K, *shape] leaf view of ``values``, what the forward uses.
        rows: K leaf views [P] of ``values``, what an optimiser is given.
    """

    def __init__(
        self,
        initial: Mapping[str, Tensor],
        copies: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """Lay out ``copies`` equal rows from ``initial`` (name -> tensor), which may be empty."""
        self.slots: dict[str, Slot] = {}
        start = 0
        for name, tensor in initial.items():
            self.slots[name] = Slot(slice(start, start + tensor.numel()), tensor.shape)
            start += tensor.numel()
        self.values = torch.zeros(copies, start, dtype=dtype, device=device)
        self.grads = torch.zeros_like(self.values)
        self.beyond: Tensor | None = None
        self.begin(range(copies))
        self.tensors = {
            name: self.values[:, slot.columns].view(copies, *slot.shape).requires_grad_()
            for name, slot in self.slots.items()
        }
        self.rows = [row.requires_grad_() for row in self.values.unbind()]
        # What autograd is asked for so that it goes back as far as the gathered rows.
        self._anchor = self.values.new_zeros(()).requires_grad_()
        self._handed: list[int] = []
        for row in range(copies):
            self.write(row, initial)

    @property
    def copies(self) -> int:
        """Number of rows K."""
        return len(self.values)

    def size(self, names: Sequence[str] | None = None) -> int:
        """Return how many numbers of a row the named slots hold; all of them by default."""
        chosen = self.slots if names is None else names
        return sum(math.prod(self.slots[name].shape) for name in chosen)

    def read(self, row: int) -> dict[str, Tensor]:
        """Return a copy of one row, name -> tensor."""
        return {name: self.values[row, s.columns].view(s.shape).clone() for name, s in self.slots.items()}

    def numbers(self, row: int, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the named slots of one row, name -> view."""
        values = self.values.detach()[row]
        return {name: values[self.slots[name].columns].view(self.slots[name].shape) for name in names}

    def gradient(self, row: int) -> dict[str, Tensor]:
        """Return the gradients of one row, name -> view."""
        return {name: self.grads[row, s.columns].view(s.shape) for name, s in self.slots.items()}

    @torch.no_grad()
    def write(self, row: int, state: Mapping[str, Tensor]) -> None:
        """Overwrite the slots of one row that ``state`` names."""
        for name, slot in self.slots.items():
            if name in state:
                self.values[row, slot.columns] = state[name].reshape(-1).to(self.values)
        if self.beyond is not None:
            self.values[row].masked_fill_(self.beyond[row], 0.0)

    @torch.no_grad()
    def limit(self, beyond: Tensor) -> None:
        """Keep what ``beyond`` [K, P] marks at zero from now on: it gets no gradient, so no momentum either."""
        self.beyond = beyond
        self.values.masked_fill_(beyond, 0.0)

    @property
    def active(self) -> list[int]:
        """The rows of the step."""
        found: list[int] = self._active.tolist()
        return found

    def gather(self, rows: Sequence[int]) -> Gathered | None:
        """Return copies of the ``rows`` of a pass; None where it takes every row, or trains none."""
        wanted = list(dict.fromkeys(rows))
        if not (self.tensors and torch.is_grad_enabled()) or wanted == list(range(self.copies)):
            return None
        index = torch.tensor(wanted, dtype=torch.long, device=self.values.device)
        block: Tensor = _Gather.apply(self._anchor, self, index)  # type: ignore[no-untyped-call]
        sizes = [slot.columns.stop - slot.columns.start for slot in self.slots.values()]
        tensors = {
            self.tensors[name]: part.view(len(wanted), *slot.shape)
            for (name, slot), part in zip(self.slots.items(), block.split_with_sizes(sizes, 1), strict=True)
        }
        return Gathered({row: place for place, row in enumerate(wanted)}, tensors)

    def begin(self, active: Sequence[int]) -> None:
        """Begin a step of the ``active`` rows: forget their gradients; the others are neither read nor written."""
        self._active = torch.tensor(active, dtype=torch.long, device=self.values.device)
        self.grads.index_fill_(0, self._active, 0.0)

    def only(self, rows: Collection[int]) -> None:
        """Go on with those of ``rows`` alone: the others of the step do not move."""
        self._active = torch.tensor(
            [row for row in self.active if row in rows], device=self.values.device
        ).long()

    def backward(
        self,
        output: Tensor,
        grad_output: Tensor | None = None,
        inputs: Sequence[Tensor] = (),
        *,
        again: bool = False,
    ) -> list[Tensor | None]:
        """Add the gradients of ``output`` to ``grads``; return those of ``inputs``, as torch.autograd.grad does.

        Those of gathered rows are added on the way. ``again`` keeps the graph for another call.
        """
        wanted = [*inputs, *self.tensors.values(), self._anchor]
        found = torch.autograd.grad(output, wanted, grad_output, allow_unused=True, retain_graph=again)
        for slot, grad in zip(self.slots.values(), found[len(inputs) : -1], strict=True):
            if grad is not None:
                columns, rows = self.grads[:, slot.columns], grad.reshape(self.copies, -1)
                if len(self._active) == self.copies:
                    columns += rows
                else:
                    columns.index_add_(0, self._active, rows[self._active])
        return list(found[: len(inputs)])

    def average(self, shares: Mapping[int, float], rows: Sequence[int]) -> None:
        """Give each of ``rows`` the sum of what the rows of ``shares`` have as gradient, each times its share."""
        total = sum(
            (self.grads[row] * share for row, share in shares.items()), self.grads.new_zeros(self.size())
        )
        self._active = torch.tensor(rows, dtype=torch.long, device=self.values.device)
        self.grads[self._active] = total

    def hand_out(self, clip: float = 0.0) -> None:
        """Give each active row its gradient, clipped to norm ``clip`` (0: not clipped), and the others none."""
        if clip or self.beyond is not None:
            own = self.grads[self._active]
            if self.beyond is not None:
                own.masked_fill_(self.beyond[self._active], 0.0)
            if clip:
                norms = torch.linalg.vector_norm(own, dim=1, keepdim=True)
                # Row by row, as clip_grad_norm_ does for one device.
                own = own * (clip / (norms + 1e-6)).clamp(max=1.0)
            self.grads.index_copy_(0, self._active, own)
        for index in self._handed:
            self.rows[index].grad = None
        self._handed = self.active
        for index in self._handed:
            self.rows[index].grad = self.grads[index]
