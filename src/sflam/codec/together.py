"""Small messages of many devices encoded and decoded in one pass: byte for byte as one by one.

A quantizer that treats every token by itself does not care whose token it is; what is spared is the cost of calling
it, which a small message costs as much as a large one. Large messages gain nothing and stay apart, so that extra memory
is small for any number of devices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sflam.codec import noise
from sflam.codec.pieces import join
from sflam.codec.quantizer import Floats, Keyed, Packed, Quantizer
from sflam.sizes import MAX_BITS, MIN_BITS, codes_bytes

MOST = 1 << 18
"""Values encoded in one pass: 1 MB, of which a step of ten devices of a small model has about as many."""


def encode_together(
    quantizer: Keyed, every: Floats, counts: Sequence[int], bits: int, seeds: Sequence[int]
) -> list[Packed]:
    """Return the messages of the first ``counts[0]`` tokens of float32 [n, d], of the next ``counts[1]`` ...

    Raises:
        QuantizerError: as ``Quantizer.encode``; the token it names is counted from the first of all.
    """
    return _divided(quantizer.encode_keyed(every, bits, noise.keys_of_each(seeds, counts)), counts)


def decode_together(quantizer: Quantizer, each: Sequence[Packed]) -> list[Floats]:
    """Return the tokens of several messages, of one pass of :func:`passes`: parts of one array.

    Raises:
        QuantizerError: as ``Quantizer.decode``.
    """
    ends = np.cumsum([packed.tokens for packed in each])
    return np.split(quantizer.decode(join(each)), ends[:-1])


def passes(shapes: Sequence[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Return which messages go through in one pass, (start, stop) of each: neighbours alike, with few values in all.

    Args:
        shapes: (bits, n, d) of every message.
    """
    found: list[tuple[int, int]] = []
    for index, (bits, tokens, dim) in enumerate(shapes):
        whole = MIN_BITS <= bits <= MAX_BITS and dim * bits % 8 == 0  # every token's codes end with a byte
        if found and whole and (shapes[index - 1][0], shapes[index - 1][2]) == (bits, dim):
            start = found[-1][0]
            if sum(own for _, own, _ in shapes[start:index]) * dim + tokens * dim <= MOST:
                found[-1] = start, index + 1
                continue
        found.append((index, index + 1))
    return found


def _divided(packed: Packed, counts: Sequence[int]) -> list[Packed]:
    """Return the messages of the first ``counts[0]`` tokens, the next ``counts[1]`` ...: views."""
    found, first = [], 0
    per_token = codes_bytes(1, packed.dim, packed.bits)
    for count in counts:
        codes = packed.codes[first * per_token : (first + count) * per_token]
        side = packed.side[first : first + count]
        found.append(Packed(packed.scheme, packed.bits, count, packed.dim, codes, side))
        first += count
    return found
