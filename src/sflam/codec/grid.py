"""The grid of a token: 2^bits levels, ``offset + code * step``, with offset and step in bfloat16.

The offset is the token's minimum rounded down, the step is (maximum - offset) / (2^bits - 1) rounded up, so
no value of the token lies outside the grid and stochastic rounding is unbiased, subnormals included. Only a
token that is one bfloat16 value everywhere gets step 0. A code has at most 16 significant bits and a step 8,
so ``code * step`` is exact in float32 and a fused multiply-add cannot change a decoded value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sflam.codec.quantizer import Floats, Words
from sflam.errors import NotFiniteError, QuantizerError

LARGEST = float(np.finfo(np.float32).max)
AMPLE = (
    0x7000  # bfloat16 bit pattern of 2^97: levels from offsets and steps below it are far from float32's end
)
INFINITY = 0x7F80  # bfloat16 bit pattern


@dataclass(frozen=True, eq=False)
class Grid:
    """The levels of n tokens.

    Attributes:
        offset: lowest level, float32 [n, 1].
        step: distance of the levels, float32 [n, 1]; 0 where the token is one bfloat16 value.
        side: bfloat16 bit patterns of offset and step, uint16 [n, 2].
    """

    offset: Floats
    step: Floats
    side: Words


def fit(low: Floats, high: Floats, bits: int, first: int = 0) -> Grid:
    """Return the tightest grid of 2^bits levels around [low, high], both float32 [n].

    Messages count tokens from ``first``.

    Raises:
        QuantizerError: NaN or inf, or a range that float32 cannot hold.
    """
    finite = np.isfinite(low) & np.isfinite(high)
    if not finite.all():
        token = int(np.argmin(finite))
        raise NotFiniteError(
            f"token {first + token} ranges from {low[token]} to {high[token]}; only finite values can be quantized: "
            "lower the learning rate, or clip"
        )
    low, high = low + np.float32(0), high + np.float32(0)  # one pattern for both zeros
    levels = (1 << bits) - 1
    raw = low.view(np.int32)
    offset_bits = (raw + np.where(raw < 0, np.int32(0xFFFF), np.int32(0))) >> 16  # truncation rounds to zero
    offset = _widen(offset_bits)
    with np.errstate(over="ignore", invalid="ignore"):  # an infinite offset or step is refused by _checked
        step = ((high.astype(np.float64) - offset) / levels).astype(np.float32)
        step_bits = step.view(np.int32) >> 16
        step_bits += (
            offset + levels * _widen(step_bits).astype(np.float64) < high
        )  # up, where it is too small
        step = _widen(step_bits)
    side = np.stack([offset_bits, step_bits], axis=1).astype(np.uint16)
    if _is_ample(side):
        return Grid(offset[:, None], step[:, None], side)
    return _checked(offset, step, side, levels, first)


def check(side: Words, bits: int) -> None:
    """Refuse a ``side`` that :func:`restore` refuses, with the same error, in a few operations where all is well."""
    if not _is_ample(side):
        restore(side, bits)


def restore(side: Words, bits: int) -> Grid:
    """Return the grid that ``side`` (uint16 [n, 2]) describes.

    Raises:
        QuantizerError: NaN, inf or a negative step, or levels that float32 cannot hold.
    """
    wide = side.astype(np.int32)
    if _is_ample(side):
        return Grid(_widen(wide[:, 0])[:, None], _widen(wide[:, 1])[:, None], side)
    bad = ((wide[:, 0] & 0x7FFF) >= INFINITY) | (wide[:, 1] >= INFINITY)
    if bad.any():
        token = int(np.argmax(bad))
        raise QuantizerError(
            f"token {token} has offset pattern {side[token, 0]:#06x} and step pattern {side[token, 1]:#06x}; "
            "the offset must be a finite bfloat16, the step also not negative"
        )
    return _checked(_widen(wide[:, 0]), _widen(wide[:, 1]), side, (1 << bits) - 1)


def _widen(pattern: npt.NDArray[np.int32]) -> Floats:
    return (pattern << 16).view(np.float32)


def _is_ample(side: Words) -> bool:
    """Whether all is finite, no step negative, and every level far from the end of float32, as of most tokens."""
    return not side.size or bool((side & 0x7FFF).max() < AMPLE and side[:, 1].max() < AMPLE)


def _checked(offset: Floats, step: Floats, side: Words, levels: int, first: int = 0) -> Grid:
    width = levels * step.astype(np.float64)
    fits = (np.maximum(offset, 0) + width <= LARGEST) & (offset >= -LARGEST)
    if not fits.all():
        token = int(np.argmin(fits))
        raise NotFiniteError(
            f"token {first + token} needs {levels} steps of {step[token]:.4g} from {offset[token]:.4g} on; "
            f"float32 ends at {LARGEST:.4g}: scale the values down"
        )
    return Grid(offset[:, None], step[:, None], side)
