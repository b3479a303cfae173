"""Images back from a cut before the first block: there a device's half is affine, so least squares inverts it.

Patch embeddings are maps of pixels, plus positions. The map is never written down: conjugate gradients on the normal
equations (CGLS, Hestenes and Stiefel 1952) need it and its transpose only, which is the device's half and its backward.

N images, T tokens, d hidden size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STEPS = 200
DONE = 1e-12
"""Of the squared gradient at the start, where an image is finished."""


def affine_inverse(
    run: Callable[[Tensor], Tensor], received: Tensor, like: Tensor, start: Tensor | None = None
) -> Tensor:
    """Return [N, ...], of the inputs whose activations are nearest to those received the ones nearest to ``start``.

    Args:
        run: an affine map of inputs, each on its own, to activations [N,T,d].
        received: [N,T,d].
        like: [N, ...] anything of the inputs' shape.
        start: [N, ...], a guess at what does not show in activations; zeros by default.
    """
    offset = run(torch.zeros_like(like)).detach()
    found = torch.zeros_like(like) if start is None else start

    def turned(residual: Tensor) -> Tensor:
        """The transpose of the map, applied."""
        at = torch.zeros_like(like, requires_grad=True)
        (back,) = torch.autograd.grad(run(at), at, residual)
        return back

    residual = received - (offset if start is None else run(found).detach())
    gradient = turned(residual)
    way, size = gradient, _squared(gradient)
    enough = DONE * size
    for _ in range(STEPS):
        going = size > enough
        if not bool(going.any()):
            break
        with torch.no_grad():
            image = run(way) - offset
        step = _shaped(torch.where(going, size / _squared(image).clamp_min(1e-300), 0.0), like)
        found = found + step * way
        residual = residual - _shaped(step.flatten(), residual) * image
        gradient = turned(residual)
        now = _squared(gradient)
        way = gradient + _shaped(now / size.clamp_min(1e-300), like) * way
        size = now
    return found


def is_affine(run: Callable[[Tensor], Tensor], like: Tensor, seed: int = 0) -> bool:
    """Whether ``run`` maps the middle of two inputs to the middle of what it maps them to, up to rounding."""
    draw = torch.Generator().manual_seed(seed)
    one, other = (torch.randn(like.shape, generator=draw).to(like) for _ in range(2))
    with torch.no_grad():
        middle, between = run((one + other) / 2), (run(one) + run(other)) / 2
    scale = float(between.abs().max())
    return float((middle - between).abs().max()) <= (1e-9 if like.dtype == torch.float64 else 1e-4) * scale


def _squared(values: Tensor) -> Tensor:
    """[N, ...] -> [N] in float64."""
    return values.detach().double().flatten(1).square().sum(1)


def _shaped(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).view(-1, *[1] * (like.dim() - 1))
