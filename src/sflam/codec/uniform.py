"""Stochastic uniform quantization with an offset and a step per token: the paper's scheme.

A value at ``(x - offset) / step = m + f`` becomes level m + 1 with probability f, else m: unbiased, and
E|e|^2 <= d step^2 / 4 per token, with the step as encoded. In fixed point with 16 fractional bits, adding a
16-bit draw and dropping the fraction does exactly that; f is first rounded to a multiple of 2^-16.

Tokens are processed in chunks that stay in the processor's cache, so extra memory is small for any input.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sflam import sizes
from sflam.codec import grid, noise
from sflam.codec.packing import LANES, code_lane, pack, unpack
from sflam.codec.quantizer import Bytes, Floats, Packed, expect_scheme
from sflam.errors import QuantizerError

CHUNK = 3 << 14  # values per chunk: all arrays of a chunk together stay below 0.7 MB
FRACTION = 1 << 16


class Uniform:
    """Unbiased stochastic rounding to 2^bits evenly spaced levels per token, 1..16 bits."""

    name = "uniform"

    def nbytes(self, tokens: int, dim: int, bits: int) -> int:
        """Return the exact bytes of codes and side information, before encoding."""
        return sizes.payload_bytes(tokens, dim, bits)

    def encode(self, x: Floats, bits: int, seed: int) -> Packed:
        """Encode float32 [n, d]. See ``Quantizer.encode``."""
        return self.encode_part(x, bits, seed, 0)

    def encode_part(self, x: Floats, bits: int, seed: int, first: int) -> Packed:
        """Encode the tokens from number ``first`` on. See ``Piecewise.encode_part``."""
        tokens, _ = check_tokens(x, bits)
        return self.encode_keyed(x, bits, noise.token_keys(seed, tokens, first), first)

    def encode_keyed(self, x: Floats, bits: int, keys: noise.Words32, first: int = 0) -> Packed:
        """Encode tokens with these keys. See ``Keyed.encode_keyed``."""
        tokens, dim = check_tokens(x, bits)
        codes, levels = encode_tokens(x, bits, keys, first)
        return Packed(self.name, bits, tokens, dim, codes, levels.side)

    def decode(self, packed: Packed) -> Floats:
        """Return float32 [n, d]. See ``Quantizer.decode``."""
        expect_scheme(packed, self.name)
        levels = grid.restore(packed.side, packed.bits)
        out = np.empty((packed.tokens, packed.dim), np.float32)
        for rows in chunks(packed.tokens, packed.dim):
            start, stop = (row * packed.dim * packed.bits for row in (rows.start, rows.stop))
            part = packed.codes[start // 8 : -(-stop // 8)]
            codes = unpack(part, packed.bits, (rows.stop - rows.start) * packed.dim)
            np.multiply(codes.reshape(-1, packed.dim), levels.step[rows], out=out[rows])
            out[rows] += levels.offset[rows]
        return out

    def check_side(self, packed: Packed) -> None:
        """Refuse grids that no encoder writes. See ``Quantizer.check_side``."""
        grid.check(packed.side, packed.bits)


def encode_tokens(x: Floats, bits: int, keys: noise.Words32, first: int = 0) -> tuple[Bytes, grid.Grid]:
    """Return the packed codes and the grids of float32 [n, d].

    Args:
        x: the tokens.
        bits: bits per value.
        keys: the tokens' noise, uint32 [n, 1], from ``noise.token_keys``.
        first: number of the first token, for messages.

    Raises:
        QuantizerError: NaN, inf, or a range that float32 cannot hold.
    """
    tokens, dim = x.shape
    low, high = np.empty((2, tokens), np.float32)
    for rows in chunks(tokens, dim):
        np.min(x[rows], axis=1, out=low[rows])
        np.max(x[rows], axis=1, out=high[rows])
    levels = grid.fit(low, high, bits, first)
    unit = fixed_point_unit(levels.step)
    columns = noise.columns(dim)
    codes = np.empty(sizes.codes_bytes(tokens, dim, bits), np.uint8)
    for rows in chunks(tokens, dim):
        fixed = _fixed_point(x[rows], levels.offset[rows], unit[rows])
        fixed += noise.draws(keys[rows], columns)[:, :dim]  # below 2^(bits + 16): no overflow
        fixed >>= 16
        start = rows.start * dim * bits // 8
        packed = pack(fixed.astype(LANES[code_lane(bits)]).reshape(-1), bits)
        codes[start : start + packed.size] = packed
    return codes, levels


def fixed_point_unit(step: Floats) -> Floats:
    """Return step / 2^16, exact even for the smallest bfloat16 subnormal; 1 where the step is 0."""
    unit = step * np.float32(1 / FRACTION)
    unit[step == 0] = 1
    return unit


def _fixed_point(x: Floats, offset: Floats, unit: Floats) -> npt.NDArray[np.uint32]:
    y = x - offset
    y /= unit
    np.rint(y, out=y)
    return y.astype(np.uint32)


def check_tokens(x: Floats, bits: int) -> tuple[int, int]:
    """Return (n, d), or raise QuantizerError for values or a width that cannot be encoded."""
    if x.dtype != np.float32:
        raise QuantizerError(f"got {x.dtype} values; convert them to float32")
    return check_shape(x.shape, bits)


def check_shape(shape: tuple[int, ...], bits: int) -> tuple[int, int]:
    """Return (n, d), or raise QuantizerError for a shape or width that cannot be encoded."""
    if not sizes.MIN_BITS <= bits <= sizes.MAX_BITS:
        raise QuantizerError(f"{bits} bits; bits must be between {sizes.MIN_BITS} and {sizes.MAX_BITS}")
    if len(shape) != 2 or not shape[1]:
        raise QuantizerError(f"got values of shape {list(shape)}; give [n, d] with d >= 1")
    return shape[0], shape[1]


def chunks(tokens: int, dim: int, together: int = 1) -> Iterator[slice]:
    """Return the rows of each chunk, ``together`` chunks in one; each starts on a whole byte of any codes."""
    rows = max(CHUNK // dim // 8, 1) * 8 * together
    return (slice(start, min(start + rows, tokens)) for start in range(0, tokens, rows))
