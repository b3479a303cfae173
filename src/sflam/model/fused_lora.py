"""A frozen linear layer and the adapters of many devices in one operation, in the order of products that costs least.

With M rows and tokens of a group, a rank r is so small that a product's time is that of its memory, which depends on
which of two equal forms is taken: A x', [r,M], takes half the time of x A', [M,r], measured. The sums are those of
:class:`sflam.model.lora.StackedLoRA` in another order, so equal to rounding error only.

Neighbouring groups of as many rows go through the products of their adapters together, others after them: where
devices have unlike batches nothing is padded, and no row is copied.

Shapes: G groups, R rows of all, M rows and tokens of a group, i inputs, o outputs, r rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Span = tuple[int, int, int, int]
"""First group, group after the last, first row, row after the last, of neighbouring groups with as many rows."""


class FusedLoRA(torch.autograd.Function):
    """``x W' + bias + scaling x A' B'``; W and bias get no gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scaling: float,
        spans: Sequence[Span],
    ) -> Tensor:
        """Return [R,...,o] of x [R,...,i], weight [o,i], a [G,r,i], b [G,o,r] and the spans of the G groups' R rows."""
        flat = x.reshape(-1, x.shape[-1])
        out = F.linear(flat, weight, bias)
        lows = []
        for of, rows, sums in _spanned(spans, flat, out):
            low = torch.bmm(a[of], rows.mT).mul_(scaling)  # [G,r,M]
            sums.baddbmm_(low.mT, b[of].mT)
            lows.append(low)
        ctx.save_for_backward(flat, weight, a, b, *lows)
        ctx.scaling, ctx.spans = scaling, spans
        return out.view(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable  # what is kept is not all that a second derivative depends on
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, a and b where they are wanted."""
        x, weight, a, b, *lows = ctx.saved_tensors
        shape = gradients[0].shape
        grad = gradients[0].reshape(-1, shape[-1])
        wants_x, _, _, wants_a, wants_b, _, _ = ctx.needs_input_grad
        grad_x = grad @ weight if wants_x else x
        of_a, of_b = [], []
        for (of, rows, back, onto), low in zip(_spanned(ctx.spans, x, grad, grad_x), lows, strict=True):
            grad_low = torch.bmm(b[of].mT, back.mT).mul_(ctx.scaling)  # [G,r,M]
            if wants_x:
                onto.baddbmm_(grad_low.mT, a[of])
            if wants_a:
                of_a.append(torch.bmm(grad_low, rows))
            if wants_b:
                of_b.append(torch.bmm(low, back).mT)
        return (
            grad_x.view(*shape[:-1], -1) if wants_x else None,
            None,
            None,
            _joined(of_a) if wants_a else None,
            _joined(of_b) if wants_b else None,
            None,
            None,
        )


def _spanned(spans: Sequence[Span], *every: Tensor) -> Iterator[tuple[Any, ...]]:
    """Yield the groups of each span, and its part [G,M,...] of every [R tokens,...] tensor, as views."""
    per_row = len(every[0]) // spans[-1][3]
    for first, last, top, bottom in spans:
        parts = (
            each[top * per_row : bottom * per_row].view(last - first, -1, each.shape[1]) for each in every
        )
        yield slice(first, last), *parts


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts))
