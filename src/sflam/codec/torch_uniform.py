"""Stochastic uniform quantization with torch operations alone, where the tensor is: byte for byte ``uniform``.

Only packed bytes and per-token extremes leave the device; the grids, a few numbers a token, are computed on the
host by the same code as NumPy's. Elementwise operations, minima and maxima are the same on every device; sums,
norms and compiled or fused kernels would not be.
"""

from __future__ import annotations

import numpy as np
import torch

from sflam.codec import grid
from sflam.codec.quantizer import Packed, expect_scheme
from sflam.codec.torch_noise import draws
from sflam.codec.torch_packing import pack, unpack
from sflam.codec.uniform import Uniform, check_shape, fixed_point_unit


def encode_on_device(x: torch.Tensor, bits: int, seed: int) -> Packed:
    """Encode float32 [n, d] on the device of ``x``."""
    codes, levels = quantize(x, bits, seed)
    packed = pack(codes.reshape(-1), bits).cpu().numpy()
    return Packed(Uniform.name, bits, x.shape[0], x.shape[1], packed, levels.side)


def decode_on_device(packed: Packed, device: torch.device) -> torch.Tensor:
    """Return float32 [n, d], computed on ``device``."""
    expect_scheme(packed, Uniform.name)
    levels = grid.restore(packed.side, packed.bits)
    data = torch.from_numpy(np.require(packed.codes, requirements="W")).to(device)
    codes = unpack(data, packed.bits, packed.tokens * packed.dim)
    return dequantize(codes.view(-1, packed.dim), levels)


def round_trip_on_device(x: torch.Tensor, bits: int, seed: int) -> torch.Tensor:
    """Return ``decode_on_device(encode_on_device(x, bits, seed))`` without packing."""
    return dequantize(*quantize(x, bits, seed))


def quantize(x: torch.Tensor, bits: int, seed: int) -> tuple[torch.Tensor, grid.Grid]:
    """Return the codes of float32 [n, d], integers [n, d] on its device, and the tokens' grids."""
    tokens, dim = check_shape(tuple(x.shape), bits)
    extremes = torch.stack([x.amin(dim=1), x.amax(dim=1)]).cpu().numpy()
    levels = grid.fit(extremes[0], extremes[1], bits)
    offset = torch.from_numpy(levels.offset).to(x.device)
    unit = torch.from_numpy(fixed_point_unit(levels.step)).to(x.device)
    wide = torch.int64 if bits == 16 else torch.int32  # holds a code and its 16-bit fraction
    fixed = ((x - offset) / unit).round().to(wide)
    codes = fixed + draws(seed, tokens, dim, x.device) >> 16
    return codes.clamp(max=(1 << bits) - 1), levels  # in case a device's division is not correctly rounded


def dequantize(codes: torch.Tensor, levels: grid.Grid) -> torch.Tensor:
    """Return float32 [n, d]: the levels that ``codes`` name."""
    offset, step = (torch.from_numpy(part).to(codes.device) for part in (levels.offset, levels.step))
    return codes * step + offset
