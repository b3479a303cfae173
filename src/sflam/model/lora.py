"""Stacked per-device LoRA: one batched matmul serves every device's own adapters.

R rows (samples) of a batch belong to G devices; ``Rows`` records which. For device g with adapters A_g [r,i] and
B_g [o,r] a layer computes ``base(x) + scaling * B_g A_g x`` for its rows. Measured as cheap as one shared adapter.

Shapes: K stacked copies, G groups in this batch, R rows, T tokens, i inputs, o outputs, r rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sflam.model.fused_lora import FusedLoRA, Span
from sflam.model.row_masks import RowMasks
from sflam.model.stack import Gathered


@dataclass(frozen=True)
class Rows:
    """Which copy each row of a batch uses.

    Attributes:
        copies: the stack row of each group, in the order of the batch.
        counts: how many consecutive batch rows each group has.
        apart: every row is a group, and has a gradient of its own.
    """

    copies: tuple[int, ...]
    counts: tuple[int, ...]
    apart: bool = False

    @classmethod
    def each(cls, copies: Sequence[int], counts: Sequence[int]) -> Rows:
        """Return the layout of the same rows apart, so that a backward leaves the gradient of each sample."""
        every = tuple(copy for copy, count in zip(copies, counts, strict=True) for _ in range(count))
        return cls(every, (1,) * len(every), apart=True)

    @classmethod
    def of(cls, copies: Sequence[int], counts: Sequence[int]) -> Rows:
        """Return the layout; neighbouring groups that use the same copy become one."""
        merged: list[list[int]] = []
        for copy, count in zip(copies, counts, strict=True):
            if merged and merged[-1][0] == copy:
                merged[-1][1] += count
            else:
                merged.append([copy, count])
        return cls(tuple(copy for copy, _ in merged), tuple(count for _, count in merged))

    def last(self, count: int) -> Rows:
        """Return the layout of the last ``count`` rows alone."""
        copies: list[int] = []
        counts: list[int] = []
        for copy, own in zip(reversed(self.copies), reversed(self.counts), strict=True):
            if count:
                copies.insert(0, copy)
                counts.insert(0, min(own, count))
                count -= counts[0]
        return Rows(tuple(copies), tuple(counts))

    @cached_property
    def even(self) -> bool:
        """Whether all groups have the same number of rows."""
        return len(set(self.counts)) == 1

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """Neighbouring groups with as many rows: first group, group after the last, first row, row after the last."""
        found: list[Span] = []
        row = 0
        for group, count in enumerate(self.counts):
            if found and self.counts[group - 1] == count:
                first, _, top, _ = found.pop()
            else:
                first, top = group, row
            row += count
            found.append((first, group + 1, top, row))
        return tuple(found)

    @cached_property
    def positions(self) -> Tensor:
        """[R] where each row stands in a [G * max(counts)] padded layout."""
        width = max(self.counts)
        return torch.cat([torch.arange(n) + g * width for g, n in enumerate(self.counts)])

    def gather(self, x: Tensor) -> Tensor:
        """[R, ..., i] -> [G, N, i]: every group's rows and tokens side by side, short groups padded with zeros."""
        groups, width = len(self.counts), x.shape[-1]
        if self.even:
            return x.reshape(groups, -1, width)
        x = x.reshape(sum(self.counts), -1, width)  # some models lay rows and tokens end to end
        padded = x.new_zeros(groups * max(self.counts), *x.shape[1:])
        padded = padded.index_copy(0, self.positions.to(x.device), x)
        return padded.reshape(groups, -1, width)

    def scatter(self, y: Tensor, like: Sequence[int]) -> Tensor:
        """[G, N, o] -> [R, ..., o]: the inverse of :meth:`gather`; ``like`` is the leading shape, (R, ...) or (RT,)."""
        if self.even:
            return y.reshape(*like, y.shape[-1])
        padded = y.reshape(len(self.counts) * max(self.counts), -1, y.shape[-1])
        return padded.index_select(0, self.positions.to(y.device)).reshape(*like, y.shape[-1])


class Layout:
    """The rows of the batch in flight, shared by all stacked layers of one segment.

    Attributes:
        rows: which copy each row uses.
        gathered: the copies that the batch uses, where they were taken out of the stack, or where copies have seats.
        fused: whether layers may take a shorter way that is equal to rounding error, not to the bit.
        masks: what draws the dropout of each row, where not that of the batch is drawn at once.
        bare: whether no row has adapters in the block at hand.
    """

    def __init__(self) -> None:
        self.rows = Rows((0,), (1,))
        self.gathered: Gathered | None = None
        self.fused = False
        self.masks: RowMasks | None = None
        self.bare = False

    def pick(self, stacked: Tensor) -> Tensor:
        """Return [G, ...], the copies of this batch's groups, of a [S, ...] tensor of the stack, or of [1, ...]."""
        copies = self.rows.copies
        if self.gathered is not None and self.gathered.apart and stacked in self.gathered.tensors:
            return self.gathered.tensors[stacked]
        if len(stacked) == 1:
            return stacked.expand(len(copies), *stacked.shape[1:])
        if self.gathered is not None:
            stacked = self.gathered.tensors.get(stacked, stacked)
            copies = tuple(map(self.gathered.places.__getitem__, copies))
        first, last = copies[0], copies[-1]
        if copies == tuple(range(first, last + 1)):
            return stacked if len(copies) == len(stacked) else stacked[first : last + 1]
        return stacked[torch.tensor(copies, device=stacked.device)]


class StackedLoRA(nn.Module):
    """A frozen layer plus each device's own low-rank update.

    Args:
        base: the frozen layer, any callable on [..., i].
        a: [K, r, i], or [1, r, i] when A is frozen and common to all.
        b: [K, o, r], or [1, o, r] when B is frozen too.
        scaling: alpha / r.
        dropout: probability on the input of the update.
        layout: the rows of the batch in flight.
    """

    def __init__(
        self, base: nn.Module, a: Tensor, b: Tensor, scaling: float, dropout: float, layout: Layout
    ) -> None:
        super().__init__()
        self.base = base
        self.a, self.b = a, b
        self.scaling = scaling
        self.dropout = dropout
        self.layout = layout

    def forward(self, x: Tensor) -> Tensor:
        """[R, ..., i] -> [R, ..., o]."""
        if self.layout.bare:
            plain: Tensor = self.base(x)
            return plain
        rows = self.layout.rows
        a, b = self.layout.pick(self.a), self.layout.pick(self.b)
        if self._fuses(x, a):
            base: Any = self.base
            joint: Tensor = FusedLoRA.apply(x, base.weight, base.bias, a, b, self.scaling, rows.spans)  # type: ignore[no-untyped-call]
            return joint
        z = rows.gather(F.dropout(x, self.dropout, self.training) if self.dropout else x)
        low = torch.bmm(z.to(a.dtype), a.mT) * self.scaling
        out: Tensor = self.base(x)
        return out + rows.scatter(torch.bmm(low, b.mT), x.shape[:-1]).to(out.dtype)

    def _fuses(self, x: Tensor, a: Tensor) -> bool:
        """Whether base layer and update are one operation: a plain layer, numbers of one type."""
        if not self.layout.fused or type(self.base) is not nn.Linear:
            return False
        dropped = self.dropout and self.training
        return (
            not dropped
            and x.dtype == a.dtype == self.base.weight.dtype
            and not torch.is_autocast_enabled(x.device.type)
        )


class StackedLinear(nn.Module):
    """A fully trained linear layer (a new head), one copy per device.

    Args:
        weight: [K, o, i].
        bias: [K, o] or None.
        layout: the rows of the batch in flight.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, layout: Layout) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self.layout = layout

    def forward(self, x: Tensor) -> Tensor:
        """[R, ..., i] -> [R, ..., o]."""
        rows = self.layout.rows
        y = torch.bmm(rows.gather(x).to(self.weight.dtype), self.layout.pick(self.weight).mT)
        if self.bias is not None:
            y = y + self.layout.pick(self.bias).unsqueeze(1)
        return rows.scatter(y, x.shape[:-1])
