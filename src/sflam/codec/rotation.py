"""A randomized Hadamard rotation before uniform quantization: outliers spread over a block, the grid gets finer.

A token x is cut into blocks of n columns, n the largest power of two that divides d (768 = 3 x 256, never padded),
and every block becomes::

    y = H D x / sqrt(n)          x = D H y / sqrt(n)

with D a diagonal of signs and H the n x n Hadamard matrix, H[i, j] = (-1)^popcount(i & j). The rotation is
orthogonal, so ``uniform``'s bound on the error of y, d step^2 / 4 per token, holds for x, and linear, so the
rounding stays unbiased. But the step follows the largest of n mixed values, about sqrt(2 ln n) standard deviations
for almost any token, where a single outlier of x would set it (Suresh, Yu, Kumar, McMahan, ICML 2017).

The signs are a public constant of the scheme: hashes of the column's number. They are not a secret and not a source
of unbiasedness, that is the dither's; they only keep H from gathering what a token has in common over its columns, a
mean or a slow wave, in one huge coefficient. Any pattern independent of the data serves, so none is drawn per
message and none is sent. A token made to match the pattern harms its own grid alone.

H is log2(n) stages of sums and differences of pairs, in one fixed order; before them come exact sign changes and
after them one multiplication. No product is ever added to anything, so no fused multiply-add can change a bit. Its
float32 rounding is not dithered: about 1e-7 of the block's norm each way, a thousandth of the step even at 16 bits,
and for blocks of subnormal values up to n times the smallest of them. Where d is odd, n = 1 and this is ``uniform``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np

from sflam import sizes
from sflam.codec import grid, noise
from sflam.codec.quantizer import Floats, Packed, expect_scheme
from sflam.codec.uniform import Uniform, check_tokens, chunks, encode_tokens
from sflam.errors import NotFiniteError

SIGNS = 0x73666C616D  # seed of the signs: "sflam" in ASCII
TOGETHER = 8  # chunks of ``uniform`` rotated at once: 1.5 MB, enough to make the cost per call small
WORK = 3 << 14  # values that are rotated at once: twice that stays in the processor's cache


class Rotated:
    """Unbiased stochastic rounding to 2^bits evenly spaced levels per rotated token, 1..16 bits."""

    name = "rotated"

    def nbytes(self, tokens: int, dim: int, bits: int) -> int:
        """Return the exact bytes of codes and side information, before encoding: those of ``uniform``."""
        return sizes.payload_bytes(tokens, dim, bits, self.name)

    def encode(self, x: Floats, bits: int, seed: int) -> Packed:
        """Encode float32 [n, d]; values below 1e38 / block^1.5 always fit. See ``Quantizer.encode``."""
        return self.encode_part(x, bits, seed, 0)

    def encode_part(self, x: Floats, bits: int, seed: int, first: int) -> Packed:
        """Encode the tokens from number ``first`` on. See ``Piecewise.encode_part``."""
        tokens, _ = check_tokens(x, bits)
        return self.encode_keyed(x, bits, noise.token_keys(seed, tokens, first), first)

    def encode_keyed(self, x: Floats, bits: int, keys: noise.Words32, first: int = 0) -> Packed:
        """Encode tokens with these keys. See ``Keyed.encode_keyed``."""
        tokens, dim = check_tokens(x, bits)
        codes = np.empty(sizes.codes_bytes(tokens, dim, bits), np.uint8)
        side = np.empty((tokens, 2), np.uint16)
        space: Floats | None = None
        for rows in chunks(tokens, dim, TOGETHER):
            if space is None:  # the first part is the largest
                space = np.empty((rows.stop - rows.start, dim), np.float32)
            y = space[: rows.stop - rows.start]
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by grid.fit
                rotate(x[rows], y)
            part, levels = encode_tokens(y, bits, keys[rows], first + rows.start)
            expect_room(levels, bits, dim, first + rows.start)
            start = rows.start * dim * bits // 8
            codes[start : start + part.size] = part
            side[rows] = levels.side
        return Packed(self.name, bits, tokens, dim, codes, side)

    def decode(self, packed: Packed) -> Floats:
        """Return float32 [n, d]. See ``Quantizer.decode``."""
        expect_scheme(packed, self.name)
        self.check_side(packed)
        y = Uniform().decode(replace(packed, scheme=Uniform.name))
        rotate_back(y, y)
        return y

    def check_side(self, packed: Packed) -> None:
        """Refuse grids that no encoder writes. See ``Quantizer.check_side``."""
        expect_room(grid.restore(packed.side, packed.bits), packed.bits, packed.dim)


def block_of(dim: int) -> int:
    """Return n, the largest power of two that divides ``dim``."""
    return dim & -dim


def scale_of(dim: int) -> float:
    """Return 1 / sqrt(n) rounded to float32; exact where n is a power of four, else off by a relative 2e-8."""
    return float(np.float32(block_of(dim) ** -0.5))


@lru_cache(maxsize=16)
def signs(dim: int) -> Floats:
    """Return the diagonal of D, float32 [d] of -1 and 1, read-only; a shorter one is the beginning of a longer."""
    pattern = 1 - 2 * (noise.token_keys(SIGNS, dim)[:, 0] >> 31).astype(np.float32)
    pattern.flags.writeable = False
    return pattern


def expect_room(levels: grid.Grid, bits: int, dim: int, first: int = 0) -> None:
    """Raise QuantizerError where rotating back, a sum of n levels, might leave float32; tokens count from ``first``.

    The encoder refuses what the decoder would.
    """
    block, offset = block_of(dim), levels.offset[:, 0].astype(np.float64)
    top = offset + ((1 << bits) - 1) * levels.step[:, 0].astype(np.float64)
    limit = grid.LARGEST / 2 / block if block > 1 else np.inf  # half, so that rounding cannot cross it
    peak = np.maximum(np.abs(offset), np.abs(top))
    if not (peak <= limit).all():
        token = int(np.argmax(peak > limit))
        raise NotFiniteError(
            f"token {first + token}, rotated, reaches {peak[token]:.4g}; in blocks of {block} float32 holds "
            f"{limit:.4g}: scale the values down"
        )


def rotate(x: Floats, out: Floats) -> None:
    """Write H D x / sqrt(n) of every block of ``x`` (float32 [n, d]) to ``out``, which may be ``x``."""
    sign, scale = signs(x.shape[1])[:, None], np.float32(scale_of(x.shape[1]))
    _by_columns(x, out, lambda part, work: np.multiply(part, sign, out=work), scale)


def rotate_back(y: Floats, out: Floats) -> None:
    """Write D H y / sqrt(n) of every block of ``y`` (float32 [n, d]) to ``out``, which may be ``y``."""
    scale = signs(y.shape[1]) * np.float32(scale_of(y.shape[1]))  # exact: a change of sign
    _by_columns(y, out, lambda part, work: np.copyto(work, part), scale)


def _by_columns(
    x: Floats, out: Floats, load: Callable[[Floats, Floats], object], scale: Floats | np.float32
) -> None:
    """Write ``scale`` H ``load(x)`` to ``out``, some tokens at a time.

    Tokens are processed column by column, so that a butterfly adds long runs at any distance of its columns.
    """
    tokens, dim = x.shape
    if block_of(dim) == 1 or not tokens:
        np.copyto(out, x)
        return
    most = min(max(WORK // dim, 16), tokens)
    space = np.empty((2, most * dim), np.float32)
    for start in range(0, tokens, most):
        rows = slice(start, min(start + most, tokens))
        count = rows.stop - rows.start
        values, spare = (part[: count * dim].reshape(dim, count) for part in space)
        load(x[rows].T, values)
        np.multiply(_butterflies(values, spare).T, scale, out=out[rows])


def _butterflies(values: Floats, spare: Floats) -> Floats:
    """Return H ``values`` [d, n], columns first, in ``values`` or ``spare``; both are overwritten."""
    dim, count = values.shape
    distance = 1
    while distance < block_of(dim):
        a, b = (part.reshape(-1, 2, distance * count).swapaxes(0, 1) for part in (values, spare))
        np.add(a[0], a[1], out=b[0])
        np.subtract(a[0], a[1], out=b[1])
        values, spare, distance = spare, values, 2 * distance
    return values
