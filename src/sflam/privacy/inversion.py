"""Images back from any cut: descend from grey to a smooth image whose activations are those received.

After Mahendran and Vedaldi (Understanding deep image representations by inverting them, CVPR 2015): the squared
distance of activations over their squared norm, plus the total variation of the image, descended with Adam through the
device's half, which the server knows.

N images, C channels, S pixels a side, T tokens, d hidden size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

RATE = 0.05


def descended(
    run: Callable[[Tensor], Tensor],
    received: Tensor,
    like: Tensor,
    *,
    steps: int,
    smooth: float,
    low: Tensor,
    high: Tensor,
    start: Tensor | None = None,
) -> Tensor:
    """Return [N,C,S,S], the images found.

    Args:
        run: images to activations, each image on its own.
        received: [N,T,d].
        like: [N,C,S,S] anything of the images' shape.
        steps: of Adam.
        smooth: what the total variation, the mean |difference| of neighbouring pixels, counts beside the distance.
        low: [C,1,1] the values of black pixels.
        high: [C,1,1] those of white ones.
        start: [N,C,S,S] to descend from; grey by default.
    """
    grey = ((low + high) / 2).expand_as(like)
    image = (grey if start is None else start).clone().requires_grad_()
    optimizer = torch.optim.Adam([image], lr=RATE)
    norm = received.square().flatten(1).sum(1).clamp_min(1e-12)
    for _ in range(steps):
        distance = (run(image) - received).square().flatten(1).sum(1) / norm
        loss = (distance + smooth * variation(image)).sum()  # images are apart: each has its own gradient
        (image.grad,) = torch.autograd.grad(loss, image)
        optimizer.step()
        with torch.no_grad():
            image.clamp_(low, high)
    return image.detach()


def variation(images: Tensor) -> Tensor:
    """Return [N], the mean absolute difference between neighbouring pixels of images [N,C,S,S]."""
    across = (images[..., 1:] - images[..., :-1]).abs().flatten(1).mean(1)
    return across + (images[..., 1:, :] - images[..., :-1, :]).abs().flatten(1).mean(1)
