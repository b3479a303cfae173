"""The trained numbers of K copies of one segment, side by side.

One matrix ``values [K, P]`` holds everything: row k is all that device k trains, and every adapter tensor is a
leaf view ``[K, *shape]`` into its columns, which the forward uses. The optimiser sees another set of leaf views,
one per row. So one batched forward and backward serves all devices, while each keeps its own optimiser state, and
a row without a gradient does not move. A pass of some rows only works on a copy of those, and its gradients come back
to their rows: what it costs does not depend on K.

Where only some of the K rows are ever used at once the matrix has that many places: :meth:`AdapterStack.seat` gives
places to the rows of a round, and what a stack takes does not depend on K either.
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
        tensors: leaf view ``[S, *shape]`` of the stack -> the same of the gathered rows alone, ``[A, *shape]``; empty
            where the pass uses the stack itself.
        apart: every row of the batch has a copy of its own, in order.
    """

    places: dict[int, int]
    tensors: dict[Tensor, Tensor]
    apart: bool = False


class _Gather(torch.autograd.Function):
    """Some rows of a stack, [A, P]; their gradients are added to the stack's own, row by row."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, stack: AdapterStack, index: Tensor, apart: bool) -> Tensor:
        ctx.stack, ctx.index, ctx.apart = stack, index, apart
        return stack.values.detach().index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        ctx.stack.grads.index_add_(0, ctx.index, gradients[0])
        if ctx.apart:
            ctx.stack.of_samples = gradients[0]
        return gradients[0].new_zeros(()), None, None, None


class AdapterStack:
    """``K`` rows of trained numbers with named slots, S of them at once; S is K unless ``seats`` says otherwise.

    Attributes:
        copies: K.
        values: [S, P] the numbers.
        grads: [S, P] their gradients of the current step.
        slots: name -> Slot.
        beyond: [S, P] what stays zero in each row and never moves; None for nothing.
        tensors: name -> [S, *shape] leaf view of ``values``, what the forward uses.
        rows: S leaf views [P] of ``values``, what an optimiser is given.
        of_samples: [R, P] gradients of each row of a batch, left by the last backward of a pass whose rows had copies
            of their own; None where there was none.
    """

    def __init__(
        self,
        initial: Mapping[str, Tensor],
        copies: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        seats: int = 0,
    ) -> None:
        """Lay out ``copies`` equal rows from ``initial`` (name -> tensor), which may be empty.

        With fewer ``seats`` (0: one each) the first rows have them until :meth:`seat` gives them to others.
        """
        self.slots: dict[str, Slot] = {}
        start = 0
        for name, tensor in initial.items():
            self.slots[name] = Slot(slice(start, start + tensor.numel()), tensor.shape)
            start += tensor.numel()
        self.copies = copies
        held = min(copies, seats or copies)
        self._places = {row: row for row in range(held)} if held < copies else None
        self._start = torch.zeros(start, dtype=dtype, device=device)
        for name, slot in self.slots.items():
            self._start[slot.columns] = initial[name].reshape(-1).to(self._start)
        self._limits: Mapping[int, Tensor] = {}
        self.values = self._start.repeat(held, 1)
        self.grads = torch.zeros_like(self.values)
        self.beyond: Tensor | None = None
        self.of_samples: Tensor | None = None
        self.begin(range(held))
        self.tensors = {
            name: self.values[:, slot.columns].view(held, *slot.shape).requires_grad_()
            for name, slot in self.slots.items()
        }
        self.rows = [row.requires_grad_() for row in self.values.unbind()]
        # What autograd is asked for so that it goes back as far as the gathered rows.
        self._anchor = self.values.new_zeros(()).requires_grad_()
        self._handed: list[int] = []

    @property
    def absent(self) -> bool:
        """Whether there are fewer places than rows."""
        return self._places is not None

    @property
    def seated(self) -> dict[int, int]:
        """Row -> its place in ``values``, of the rows that have one."""
        return {row: row for row in range(self.copies)} if self._places is None else dict(self._places)

    def place(self, row: int) -> int:
        """Return where a row stands in ``values``; it has a seat."""
        return row if self._places is None else self._places[row]

    def has(self, rows: Collection[int]) -> bool:
        """Return whether all of ``rows`` have places."""
        return self._places is None or self._places.keys() >= set(rows)

    @torch.no_grad()
    def seat(self, rows: Collection[int]) -> None:
        """Give places to ``rows`` and to no others, in order, each at the values of the start; see :meth:`has`."""
        if self.has(rows):
            return
        assert len(rows) <= len(self.values), f"{len(rows)} rows want {len(self.values)} seats"
        self._places = {row: place for place, row in enumerate(sorted(rows))}
        self.values[:] = self._start
        self.begin(())
        self.grads.zero_()
        for row in self.rows:
            row.grad = None
        self._handed = []
        self.limit(self._limits)

    def size(self, names: Sequence[str] | None = None) -> int:
        """Return how many numbers of a row the named slots hold; all of them by default."""
        chosen = self.slots if names is None else names
        return sum(math.prod(self.slots[name].shape) for name in chosen)

    def read(self, row: int) -> dict[str, Tensor]:
        """Return a copy of one row, name -> tensor."""
        return self.named(self.row(row))

    def named(self, values: Tensor) -> dict[str, Tensor]:
        """Return a copy of the numbers [P] of a row, name -> tensor."""
        if not self.slots:
            return {}
        sizes = [slot.columns.stop - slot.columns.start for slot in self.slots.values()]
        parts = torch.split(values.clone(), sizes)
        return {name: part.view(s.shape) for (name, s), part in zip(self.slots.items(), parts, strict=True)}

    def row(self, row: int) -> Tensor:
        """Return one row [P], as a view."""
        return self.values.detach()[self.place(row)]

    def numbers(self, row: int, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the named slots of one row, name -> view."""
        values = self.row(row)
        return {name: values[self.slots[name].columns].view(self.slots[name].shape) for name in names}

    def gradients(self, row: int) -> Tensor:
        """Return the gradients of one row [P], as a view."""
        return self.grads[self.place(row)]

    def gradient(self, row: int) -> dict[str, Tensor]:
        """Return the gradients of one row, name -> view."""
        own = self.gradients(row)
        return {name: own[s.columns].view(s.shape) for name, s in self.slots.items()}

    @torch.no_grad()
    def write(self, row: int, state: Mapping[str, Tensor]) -> None:
        """Overwrite the slots of one row that ``state`` names."""
        place = self.place(row)
        own = self.values[place]
        if self.slots and self.slots.keys() <= state.keys():
            torch.cat([state[name].reshape(-1).to(self.values) for name in self.slots], out=own)
        else:
            for name, slot in self.slots.items():
                if name in state:
                    own[slot.columns] = state[name].reshape(-1).to(self.values)
        if self.beyond is not None:
            own.masked_fill_(self.beyond[place], 0.0)

    @torch.no_grad()
    def limit(self, beyond: Mapping[int, Tensor]) -> None:
        """Keep what ``beyond``, row -> [P], marks at zero: it gets no gradient, so no momentum either."""
        self._limits = beyond
        if not beyond:
            return
        self.beyond = torch.zeros_like(self.values, dtype=torch.bool)
        for row, place in self.seated.items():
            self.beyond[place] = beyond[row]
        self.values.masked_fill_(self.beyond, 0.0)

    @property
    def active(self) -> list[int]:
        """The rows of the step."""
        return list(self._stepping)

    @property
    def moving(self) -> list[int]:
        """The places of the rows of the step."""
        found: list[int] = self._active.tolist()
        return found

    def gather(self, rows: Sequence[int], *, apart: bool = False) -> Gathered | None:
        """Return copies of the ``rows`` of a pass; None where it takes every row, or trains none.

        ``apart`` makes one for each entry, however often a row is named, so that each has a gradient of its own.
        """
        wanted = list(map(self.place, rows) if apart else dict.fromkeys(map(self.place, rows)))
        learns = bool(self.tensors) and torch.is_grad_enabled()
        if not learns or (not apart and wanted == list(range(len(self.values)))):
            return None if self._places is None else Gathered(self._places, {})
        index = torch.tensor(wanted, dtype=torch.long, device=self.values.device)
        block: Tensor = _Gather.apply(self._anchor, self, index, apart)  # type: ignore[no-untyped-call]
        sizes = [slot.columns.stop - slot.columns.start for slot in self.slots.values()]
        tensors = {
            self.tensors[name]: part.view(len(wanted), *slot.shape)
            for (name, slot), part in zip(self.slots.items(), block.split_with_sizes(sizes, 1), strict=True)
        }
        return Gathered({row: place for place, row in enumerate(dict.fromkeys(rows))}, tensors, apart)

    def begin(self, active: Sequence[int]) -> None:
        """Begin a step of the ``active`` rows: forget their gradients; the others are neither read nor written."""
        self._step(active)
        self.grads.index_fill_(0, self._active, 0.0)

    def only(self, rows: Collection[int]) -> None:
        """Go on with those of ``rows`` alone: the others of the step do not move."""
        self._step([row for row in self._stepping if row in rows])

    def _step(self, rows: Sequence[int]) -> None:
        self._stepping = tuple(rows)
        places = list(map(self.place, rows))
        self._active = torch.tensor(places, dtype=torch.long, device=self.values.device)

    def backward(
        self,
        output: Tensor,
        grad_output: Tensor | None = None,
        inputs: Sequence[Tensor] = (),
        *,
        again: bool = False,
    ) -> list[Tensor | None]:
        """Add the gradients of ``output`` to ``grads``; return those of ``inputs``, as torch.autograd.grad does.

        Those of gathered rows are added on the way. ``again`` keeps the graph for another call. An output that nothing
        trained went into, as that of a server without blocks behind a frozen half, gives none.
        """
        if not output.requires_grad:
            return [None] * len(inputs)
        wanted = [*inputs, *self.tensors.values(), self._anchor]
        found = torch.autograd.grad(output, wanted, grad_output, allow_unused=True, retain_graph=again)
        for slot, grad in zip(self.slots.values(), found[len(inputs) : -1], strict=True):
            if grad is not None:
                columns, rows = self.grads[:, slot.columns], grad.reshape(len(self.grads), -1)
                if len(self._active) == len(self.grads):
                    columns += rows
                else:
                    columns.index_add_(0, self._active, rows[self._active])
        return list(found[: len(inputs)])

    def taken_samples(self) -> Tensor | None:
        """Return ``of_samples``, and forget it."""
        found, self.of_samples = self.of_samples, None
        return found

    def average(self, shares: Mapping[int, float], rows: Sequence[int]) -> None:
        """Give each of ``rows`` the sum of what the rows of ``shares`` have as gradient, each times its share."""
        total = sum(
            (self.gradients(row) * share for row, share in shares.items()), self.grads.new_zeros(self.size())
        )
        self._step(rows)
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
        self._handed = self.moving
        for index in self._handed:
            self.rows[index].grad = self.grads[index]
