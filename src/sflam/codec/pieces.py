"""Encoded tokens joined, divided, and made in pieces, without decoding them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sflam import sizes
from sflam.codec.packing import pack, unpack
from sflam.codec.quantizer import Packed


def join(parts: Sequence[Packed]) -> Packed:
    """Return the tokens of all ``parts``, in order; at least one part, all of one scheme, bits and dim."""
    first = parts[0]
    assert all((part.scheme, part.bits, part.dim) == (first.scheme, first.bits, first.dim) for part in parts)
    if len(parts) == 1:
        return first
    tokens = sum(part.tokens for part in parts)
    side = np.concatenate([part.side for part in parts])
    if _whole_bytes(first):
        codes = np.concatenate([part.codes for part in parts])
    else:
        loose = [unpack(part.codes, part.bits, part.tokens * part.dim) for part in parts]
        codes = pack(np.concatenate(loose), first.bits)
    return Packed(first.scheme, first.bits, tokens, first.dim, codes, side)


def split(packed: Packed, counts: Sequence[int]) -> list[Packed]:
    """Return copies of the next ``counts[0]`` tokens, the next ``counts[1]`` ..., which must add up to all."""
    assert sum(counts) == packed.tokens
    ends = np.cumsum(counts, dtype=np.int64)
    sides = np.split(packed.side, ends[:-1]) if len(packed.side) else [packed.side] * len(counts)
    if _whole_bytes(packed):
        pieces = np.split(packed.codes, ends[:-1] * (packed.dim * packed.bits // 8))
    else:
        codes = unpack(packed.codes, packed.bits, packed.tokens * packed.dim)
        pieces = [pack(piece, packed.bits) for piece in np.split(codes, ends[:-1] * packed.dim)]
    return [
        Packed(packed.scheme, packed.bits, count, packed.dim, piece.copy(), side.copy())
        for count, piece, side in zip(counts, pieces, sides, strict=True)
    ]


def part(packed: Packed, first: int, count: int) -> Packed:
    """Return ``count`` tokens from number ``first`` on: views where these begin with a byte."""
    assert 0 <= first <= first + count <= packed.tokens
    per_token = packed.dim * sizes.value_bits(packed.bits, packed.scheme)
    start, stop = first * per_token, (first + count) * per_token
    if start % 8:  # every eighth token does begin with a byte
        extra = first % 8 * packed.dim
        loose = packed.codes[(start - extra * packed.bits) // 8 : -(-stop // 8)]
        codes = pack(unpack(loose, packed.bits, extra + count * packed.dim)[extra:], packed.bits)
    else:
        codes = packed.codes[start // 8 : -(-stop // 8)]
    side = packed.side[first : first + count] if len(packed.side) else packed.side
    return Packed(packed.scheme, packed.bits, count, packed.dim, codes, side)


def _whole_bytes(packed: Packed) -> bool:
    """Whether every token's codes end with a byte."""
    return packed.scheme == sizes.IDENTITY or packed.dim * packed.bits % 8 == 0
