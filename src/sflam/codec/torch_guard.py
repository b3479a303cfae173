"""``guard`` for tensors of any device, bit for bit: what is clipped and made noisy goes through NumPy."""

from __future__ import annotations

import torch

from sflam.codec.guard import Guard


def guarded(guard: Guard | None, x: torch.Tensor, leg: int, *place: int, first: int = 0) -> torch.Tensor:
    """Return the tokens ``x`` [n, d] as they may leave the device; see :meth:`Guard.tokens`."""
    if guard is None or leg not in guard.clips:
        return x
    plain = x.detach() if x.dtype == torch.float64 else x.detach().float()
    return torch.from_numpy(guard.tokens(plain.cpu().numpy(), leg, *place, first=first)).to(x.device)
