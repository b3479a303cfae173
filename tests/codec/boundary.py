"""The cut in one process: quantized activations forward, quantized gradients back, on valid tokens only.

Shapes: B batch, T tokens, D hidden size. Both ends of the cut run in one autograd graph as if a network lay
between them; the values are exactly those that encoding, sending and decoding give.
"""

from __future__ import annotations

from typing import Any

import torch

from sflam.codec.torch_quantizers import TorchQuantizer


def boundary(
    hidden_BTD: torch.Tensor,
    quantizer: TorchQuantizer,
    bits_up: int,
    bits_down: int,
    seed_up: int,
    seed_down: int,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return ``hidden_BTD`` as the server decodes it; its gradient is what the device decodes.

    Args:
        hidden_BTD: activations [B, T, D] (any leading shape works), any float type, kept by the result.
        quantizer: see ``torch_quantizer``.
        bits_up: bits per activation value.
        bits_down: bits per gradient value.
        seed_up: seed of the activations' rounding.
        seed_down: seed of the gradients' rounding.
        mask: bool [B, T], true on valid tokens. The others are not encoded: they cost no bits, come out zero
            and get zero gradient.

    Raises:
        QuantizerError: NaN, inf or an impossible width; from ``backward`` where the gradient has it.
    """
    out = _Boundary.apply(hidden_BTD, quantizer, bits_up, bits_down, seed_up, seed_down, mask)  # type: ignore[no-untyped-call]
    assert isinstance(out, torch.Tensor)
    return out


class _Boundary(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_BTD: torch.Tensor,
        quantizer: TorchQuantizer,
        bits_up: int,
        bits_down: int,
        seed_up: int,
        seed_down: int,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.down = quantizer, bits_down, seed_down, mask
        return _cross(hidden_BTD, quantizer, bits_up, seed_up, mask)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_BTD: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return _cross(grad_BTD, *ctx.down), None, None, None, None, None, None


def _cross(
    x_BTD: torch.Tensor, quantizer: TorchQuantizer, bits: int, seed: int, mask: torch.Tensor | None
) -> torch.Tensor:
    """Return ``x_BTD`` after encoding and decoding its valid tokens, row-major, one after the other."""
    if mask is None:
        valid = x_BTD.reshape(-1, x_BTD.shape[-1])
        return quantizer.round_trip(valid, bits, seed).to(x_BTD.dtype).view_as(x_BTD)
    out = torch.zeros_like(x_BTD)
    out[mask] = quantizer.round_trip(x_BTD[mask], bits, seed).to(x_BTD.dtype)
    return out
