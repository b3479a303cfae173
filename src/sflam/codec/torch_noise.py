"""``noise`` in torch, bit for bit: int32 multiplication wraps, right shifts are masked to be logical."""

from __future__ import annotations

import numpy as np
import torch

from sflam.codec import noise


def draws(seed: int, tokens: int, dim: int, device: torch.device) -> torch.Tensor:
    """Return the 16-bit draws of ``noise``, int32 [tokens, dim] in 0..2^16 - 1."""
    keys = torch.from_numpy(noise.token_keys(seed, tokens).view(np.int32)).to(device)
    columns = torch.from_numpy(noise.columns(dim).view(np.int32)).to(device)
    return _mix(keys ^ columns).view(torch.int16)[:, :dim].int() & 0xFFFF


def _mix(x: torch.Tensor) -> torch.Tensor:
    for shift, factor in ((16, noise.MIX_1), (15, noise.MIX_2)):
        x = (x ^ x >> shift & (1 << 32 - shift) - 1) * _signed(factor)
    return x ^ x >> 16 & 0xFFFF


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word
