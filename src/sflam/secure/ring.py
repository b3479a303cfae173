"""Whole numbers modulo 2^(8 w), in which masks are added: sums are exact as long as none reaches the modulus.

Shapes: L numbers of a vector, w bytes of a number.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sflam.errors import SecureSumError, WireError

Vector = NDArray[np.uint64]
MOST_BYTES = 8


def width_of(largest: int, weights: int) -> int:
    """Return w, the fewest bytes that hold any sum of numbers up to ``largest`` by weights that add up to ``weights``.

    Raises:
        SecureSumError: more than 8 bytes.
    """
    bits = (max(largest, 1) * weights).bit_length()
    if bits > 8 * MOST_BYTES:
        raise SecureSumError(
            f"numbers up to {largest} with weights that add up to {weights} have sums of {bits} bits; "
            f"at most {8 * MOST_BYTES} bits are summed: lower quant.bits_adapters, or the samples of a round"
        )
    return max(1, -(-bits // 8))


def top(width: int) -> np.uint64:
    """Return the largest number of ``width`` bytes, by which sums are reduced."""
    return np.uint64((1 << (8 * width)) - 1)


def weighted(codes: Vector, weight: int, width: int, beside: Vector | None = None) -> Vector:
    """Return what a device adds to a sum: its codes times its weight, numbers ``beside`` that count once, its weight.

    Raises:
        SecureSumError: a weight below 0, or one that takes a number beyond ``width`` bytes.
    """
    largest, limit = max(1, int(codes.max(initial=0))), int(top(width))
    if not 0 <= weight <= limit // largest:
        raise SecureSumError(
            f"a weight of {weight} on numbers up to {largest} leaves 0..{limit}, the {width} bytes of a number; "
            "train on fewer samples a round, or lower quant.bits_adapters"
        )
    once = np.zeros(0, np.uint64) if beside is None else beside
    return np.concatenate([codes * np.uint64(weight), once, np.array([weight], np.uint64)])


def to_bytes(vector: Vector, width: int) -> bytes:
    """Return the numbers one after another, ``width`` bytes each, lowest first."""
    return vector.astype("<u8").view(np.uint8).reshape(-1, MOST_BYTES)[:, :width].tobytes()


def from_bytes(raw: bytes, width: int) -> Vector:
    """Return the vector that :func:`to_bytes` wrote.

    Raises:
        WireError: not a whole number of numbers.
    """
    if not 1 <= width <= MOST_BYTES or len(raw) % width:
        raise WireError(f"{len(raw)} bytes are no masked numbers of {width} bytes; restart the round")
    spread = np.zeros((len(raw) // width, MOST_BYTES), np.uint8)
    spread[:, :width] = np.frombuffer(raw, np.uint8).reshape(-1, width)
    found: Vector = spread.view("<u8").reshape(-1).astype(np.uint64)
    return found
