"""A frozen linear layer and the adapters of many devices in one operation, in the order of products that costs least.

With N rows and tokens of a group, a rank r is so small that a product's time is that of its memory, which depends on
which of two equal forms is taken: A's gradient as low' x takes a tenth of the time of (x' low)', measured. The sums are
those of :class:`sflam.model.lora.StackedLoRA` in another order, so equal to rounding error only.

Shapes: G groups, N rows and tokens of each, i inputs, o outputs, r rank.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class FusedLoRA(torch.autograd.Function):
    """``x W' + bias + scaling x A' B'``; W and bias get no gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
    ) -> Tensor:
        """Return [G,N,o] of x [G,N,i], weight [o,i], a [G,r,i] and b [G,o,r]."""
        low = torch.bmm(x, a.mT) * scaling  # [G,N,r]
        out = F.linear(x, weight, bias)
        out.baddbmm_(low, b.mT)
        ctx.save_for_backward(x, low, weight, a, b)
        ctx.scaling = scaling
        return out

    @staticmethod
    @once_differentiable  # what is kept is not all that a second derivative depends on
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, a and b where they are wanted."""
        x, low, weight, a, b = ctx.saved_tensors
        grad: Tensor = gradients[0].contiguous()
        wants_x, _, _, wants_a, wants_b, _ = ctx.needs_input_grad
        grad_low = torch.bmm(grad, b.mT.contiguous().mT) * ctx.scaling  # [G,N,r]
        grad_x = torch.matmul(grad, weight).baddbmm_(grad_low, a) if wants_x else None
        grad_a = torch.bmm(grad_low.mT, x) if wants_a else None
        grad_b = torch.bmm(low.mT, grad).mT if wants_b else None
        return grad_x, None, None, grad_a, grad_b, None
