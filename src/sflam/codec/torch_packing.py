"""``packing.pack`` and ``unpack`` in torch, byte for byte, so that only packed bytes leave the accelerator.

torch computes on signed integers: a lane's top bit is clear wherever it is shifted right, so arithmetic and
logical shifts agree.
"""

from __future__ import annotations

import torch

from sflam.codec.packing import code_lane

LANES = {8: torch.uint8, 16: torch.int16, 32: torch.int32, 64: torch.int64}


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Return the bytes (uint8) of ``codes`` (1-D, integer, < 2^bits), on their device."""
    lane, width, count = code_lane(bits), bits, codes.numel()
    words = torch.nn.functional.pad(codes.to(LANES[lane]), (0, -count % 8))
    while width % 8 and lane < 64:
        pairs = words.view(LANES[2 * lane])
        words = pairs & ((1 << width) - 1) | (pairs >> lane) << width
        lane, width = 2 * lane, 2 * width
    if width % 8:
        lower, upper = words[0::2], words[1::2]
        words = torch.stack([lower | upper << width, upper >> 64 - width], dim=1)
        lane, width = 2 * lane, 2 * width
    packed = words.view(torch.uint8).view(-1, lane // 8)[:, : width // 8].reshape(-1)
    return packed[: -(-count * bits // 8)]


def unpack(packed: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """Return the first ``count`` codes, int32 [count], on the device of ``packed`` (uint8)."""
    lane, width = code_lane(bits), bits
    while width % 8 and lane < 64:
        lane, width = 2 * lane, 2 * width
    wide = width % 8 != 0
    kept, stride = (bits, 16) if wide else (width // 8, lane // 8)
    missing = -(-count // 8) * bits - packed.numel()
    grouped = torch.nn.functional.pad(packed, (0, missing)).view(-1, kept)
    words = torch.nn.functional.pad(grouped, (0, stride - kept)).reshape(-1).view(LANES[lane])
    if wide:
        pairs = words.view(-1, 2)
        lower = pairs[:, 0] & ((1 << width) - 1)
        rest = pairs[:, 0] >> width & ((1 << 64 - width) - 1)
        words = torch.stack([lower, rest | pairs[:, 1] << 64 - width], dim=1).view(-1)
    while width > bits:
        lane, width = lane // 2, width // 2
        words = words & ((1 << width) - 1) | (words >> width) << lane
        words = words.view(LANES[lane])
    return words[:count].to(torch.int32) & ((1 << bits) - 1)
