"""``rotation`` with torch operations alone, where the tensor is: the same sums and differences in the same order."""

from __future__ import annotations

from dataclasses import replace

import torch

from sflam.codec.quantizer import Packed, expect_scheme
from sflam.codec.rotation import Rotated, block_of, expect_room, scale_of, signs
from sflam.codec.torch_uniform import decode_on_device, dequantize, encode_on_device, quantize
from sflam.codec.uniform import Uniform, check_shape


def encode_rotated(x: torch.Tensor, bits: int, seed: int) -> Packed:
    """Encode float32 [n, d] on the device of ``x``."""
    check_shape(tuple(x.shape), bits)
    packed = replace(encode_on_device(rotate(x), bits, seed), scheme=Rotated.name)
    Rotated().check_side(packed)
    return packed


def decode_rotated(packed: Packed, device: torch.device) -> torch.Tensor:
    """Return float32 [n, d], computed on ``device``."""
    expect_scheme(packed, Rotated.name)
    Rotated().check_side(packed)
    return rotate_back(decode_on_device(replace(packed, scheme=Uniform.name), device))


def round_trip_rotated(x: torch.Tensor, bits: int, seed: int) -> torch.Tensor:
    """Return ``decode_rotated(encode_rotated(x, bits, seed))`` without packing."""
    check_shape(tuple(x.shape), bits)
    codes, levels = quantize(rotate(x), bits, seed)
    expect_room(levels, bits, x.shape[1])
    return rotate_back(dequantize(codes, levels))


def rotate(x: torch.Tensor) -> torch.Tensor:
    """Return H D x / sqrt(n) of every block of float32 [n, d]."""
    dim = x.shape[1]
    return x if block_of(dim) == 1 else _butterflies(x * _signs(x)) * scale_of(dim)


def rotate_back(y: torch.Tensor) -> torch.Tensor:
    """Return D H y / sqrt(n) of every block of float32 [n, d]."""
    dim = y.shape[1]
    return y if block_of(dim) == 1 else _butterflies(y) * (_signs(y) * scale_of(dim))


def _signs(x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(signs(x.shape[1]).copy()).to(x.device)


def _butterflies(x: torch.Tensor) -> torch.Tensor:
    tokens, dim = x.shape
    distance = 1
    while distance < block_of(dim):
        a, b = x.reshape(tokens, dim // (2 * distance), 2, distance).unbind(2)
        x, distance = torch.stack([a + b, a - b], dim=2), 2 * distance
    return x.reshape(tokens, dim)
