"""Integers of 1..16 bits to bytes and back, nothing wasted: code i holds bits [i b, (i+1) b) of the stream.

The stream is little-endian: its bit j is bit j % 8 (from the least significant) of byte j // 8. Spare bits of
the last byte are zero. So ``sum(code << (i * bits))`` as a little-endian integer is the whole format.

Codes sit in lanes of 8 or 16 bits. Two neighbouring lanes are one lane of twice the width, so shifting the
upper code down beside the lower one merges them, for all pairs at once; repeat until a lane holds whole
bytes, and keep those. Eight codes always fill ``bits`` whole bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sflam.codec.quantizer import Bytes

Unsigned = npt.NDArray[Any]  # uint8, uint16, uint32 or uint64: the lane

LANES: dict[int, type[np.unsignedinteger[Any]]] = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


def code_lane(bits: int) -> int:
    """Return the width of the integers that hold codes of ``bits`` bits: 8 or 16."""
    return 8 if bits <= 8 else 16


def pack(codes: Unsigned, bits: int) -> Bytes:
    """Return the ceil(count * bits / 8) bytes of ``codes``, 1-D, uint8 up to 8 bits, else uint16."""
    lane, width, count = code_lane(bits), bits, codes.size
    assert codes.dtype == LANES[lane] and codes.ndim == 1
    if count % 8:
        codes = np.concatenate([codes, np.zeros(-count % 8, codes.dtype)])
    words = np.ascontiguousarray(codes)
    while width % 8 and lane < 64:
        pairs = words.view(LANES[2 * lane])
        upper = pairs >> lane
        upper <<= width
        words = pairs & ((1 << width) - 1)
        words |= upper
        lane, width = 2 * lane, 2 * width
    if width % 8:  # 9, 11, 13, 15 bits: four codes end in the middle of a byte, eight need 128 bits
        lower, upper = words[0::2], words[1::2]
        words = np.stack([lower | upper << width, upper >> 64 - width], axis=1).reshape(-1)
        return _low_bytes(words, 16, bits)[: -(-count * bits // 8)]
    return _low_bytes(words, lane // 8, width // 8)[: -(-count * bits // 8)]


def unpack(packed: Bytes, bits: int, count: int) -> Unsigned:
    """Return the first ``count`` codes, uint8 [count] up to 8 bits, else uint16; undoes ``pack``."""
    lane, width = code_lane(bits), bits
    while width % 8 and lane < 64:
        lane, width = 2 * lane, 2 * width
    groups = -(-count // 8)
    if packed.size < groups * bits:
        packed = np.concatenate([packed, np.zeros(groups * bits - packed.size, np.uint8)])
    if width % 8:
        pairs = _spread_bytes(packed, bits, 16).view(np.uint64).reshape(-1, 2)
        lower = pairs[:, 0] & ((1 << width) - 1)
        upper = pairs[:, 0] >> width | pairs[:, 1] << 64 - width
        words = np.stack([lower, upper], axis=1).reshape(-1)
    else:
        words = _spread_bytes(packed, width // 8, lane // 8).view(LANES[lane])
    while width > bits:
        lane, width = lane // 2, width // 2
        upper = words >> width
        upper <<= lane
        words = words & ((1 << width) - 1)
        words |= upper
        words = words.view(LANES[lane])
    return words[:count]


def _low_bytes(words: Unsigned, stride: int, kept: int) -> Bytes:
    """Return the ``kept`` lowest of every ``stride`` bytes."""
    if kept == stride:
        return words.view(np.uint8)
    if 8 * kept in LANES:  # one cast is much faster than strided copies
        return words.astype(LANES[8 * kept]).view(np.uint8)
    source = words.view(np.uint8).reshape(-1, stride)
    out = np.empty((len(source), kept), np.uint8)
    for byte in range(kept):
        out[:, byte] = source[:, byte]
    return out.reshape(-1)


def _spread_bytes(packed: Bytes, kept: int, stride: int) -> Bytes:
    """Return ``packed`` with zeros after every ``kept`` bytes, up to ``stride``; undoes ``_low_bytes``."""
    if kept == stride:
        return packed
    if 8 * kept in LANES:
        return packed.view(LANES[8 * kept]).astype(LANES[8 * stride]).view(np.uint8)
    source = packed.reshape(-1, kept)
    out = np.zeros((len(source), stride), np.uint8)
    for byte in range(kept):
        out[:, byte] = source[:, byte]
    return out.reshape(-1)
