"""Top-k sparsification: of every token the values of largest magnitude, each as its index and a signed level.

k is what fits into ``bits`` per value: a token's codes take at most ``dim x bits`` bits, as those of ``uniform`` do. A
kept value is rounded stochastically to one of 255 levels between -s and s, with s the largest magnitude of its token;
what is rounded to 0 is not sent, so a message is often smaller than its bound, which dense tokens reach.

A message holds the indices of all tokens, ``index_bits`` each and packed without gaps, ascending within a token; then
one byte per value, its level plus 128. The side of a token is s in bfloat16, rounded up, and how many values it has.

It is biased: what is left out is lost, unless it is made up for. Error feedback does that for the sum of a sequence of
gradients: what one step leaves out of the mean token is added to every token of the next, so that the means of all that
was sent add up to those of all that was meant, but for the last remainder.

Source: N. Strom, "Scalable Distributed DNN Training Using Commodity GPU Cloud Computing", Interspeech 2015 (largest
values, with what is left carried over); S. U. Stich, J.-B. Cordonnier, M. Jaggi, "Sparsified SGD with Memory",
arXiv:1809.07599, algorithm 1. At the cut of a split model: F. Zheng et al., arXiv:2305.18469.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sflam import sizes
from sflam.codec import noise
from sflam.codec.packing import Unsigned, pack, unpack
from sflam.codec.quantizer import Bytes, Floats, Packed, Words, expect_scheme
from sflam.codec.uniform import check_tokens, chunks
from sflam.errors import NotFiniteError, QuantizerError

LEVELS = 127
MIDDLE = 128
WIDEST = 1 << 16
INFINITY = 0x7F80  # bfloat16 bit pattern
SOME = 1 << 15  # indices packed at once; a multiple of 8


class TopK:
    """The largest values of every token, at most ``bits`` per value of the token; remembers what it leaves out."""

    name = sizes.TOPK

    def nbytes(self, tokens: int, dim: int, bits: int) -> int:
        """Return the most bytes of codes and side information; see :meth:`bound_bytes`."""
        return self.bound_bytes(tokens, dim, bits)

    def bound_bytes(self, tokens: int, dim: int, bits: int) -> int:
        """Return the bytes of tokens without a value that is rounded to 0: no message is larger."""
        return sizes.topk_bound(tokens, dim, bits)

    def encode(self, x: Floats, bits: int, seed: int) -> Packed:
        """Encode float32 [n, d]. See ``Quantizer.encode``."""
        return self._encoded(x, bits, seed)[0]

    def encode_part(self, x: Floats, bits: int, seed: int, first: int) -> Packed:
        """Encode the tokens from number ``first`` on. See ``Divisible.encode_part``."""
        return self._encoded(x, bits, seed, first)[0]

    def joined(self, parts: Sequence[Packed]) -> Packed:
        """Return the message of consecutive parts. See ``Divisible.joined``."""
        width = sizes.index_bits(parts[0].dim)
        columns, codes = [], []
        for part in parts:
            total = int(part.side[:, 1].sum(dtype=np.int64))
            columns.append(_unpacked(part.codes, width, 0, total))
            codes.append(part.codes[-(-total * width // 8) :])
        return _message(
            parts[0], np.concatenate(columns), codes, np.concatenate([part.side for part in parts])
        )

    def part(self, packed: Packed, first: int, count: int) -> Packed:
        """Return ``count`` tokens from number ``first`` on. See ``Divisible.part``."""
        columns, codes = _values_of(packed, first, first + count)
        return _message(packed, columns, [codes], packed.side[first : first + count])

    def encode_after(self, left: Floats | None, x: Floats, bits: int, seed: int) -> tuple[Packed, Floats]:
        """Encode ``x`` with what was left out before; see ``Remembering.encode_after``."""
        if left is not None:
            x = x + left
        packed, missing = self._encoded(x, bits, seed)
        if not packed.tokens:
            return packed, np.zeros(packed.dim, np.float32) if left is None else left
        return packed, (missing / packed.tokens).astype(np.float32)

    def decode(self, packed: Packed) -> Floats:
        """Return float32 [n, d], 0 where nothing was sent. See ``Quantizer.decode``."""
        self.check_side(packed)
        out = np.zeros((packed.tokens, packed.dim), np.float32)
        for part in chunks(packed.tokens, packed.dim):
            columns, codes = _values_of(packed, part.start, part.stop)
            rows = np.repeat(np.arange(part.start, part.stop), packed.side[part, 1])
            out[rows, columns] = _values(codes, _step(packed.side[:, 0])[rows])
        return out

    def check_side(self, packed: Packed) -> None:
        """Refuse what no encoder writes: the indices too, as a wrong one would reach another token's values."""
        expect_scheme(packed, self.name)
        counts = packed.side[:, 1].astype(np.int64)
        total, most = int(counts.sum()), sizes.topk_kept(packed.dim, packed.bits)
        width = sizes.index_bits(packed.dim)
        head = -(-total * width // 8)
        if (packed.side[:, 0] >= INFINITY).any():
            raise QuantizerError("a token's largest magnitude must be a finite bfloat16, and not negative")
        if counts.max(initial=0) > most or len(packed.codes) != head + total:
            raise QuantizerError(
                f"{len(packed.codes)} bytes of codes for {total} values, at most {counts.max(initial=0)} a token; "
                f"{most} a token and {head + total} bytes were agreed"
            )
        spare = total * width % 8
        good = not spare or packed.codes[head - 1] >> spare == 0
        for part in chunks(packed.tokens, packed.dim):
            good = good and _ascends(*_values_of(packed, part.start, part.stop), counts[part], packed.dim)
        if not good:
            raise QuantizerError(
                "indices must ascend within a token and be below its size, and levels differ from 0"
            )

    def _encoded(
        self, x: Floats, bits: int, seed: int, first: int = 0
    ) -> tuple[Packed, npt.NDArray[np.float64]]:
        """Return the message of tokens from number ``first`` on, and the sum of what it leaves out, [d]."""
        tokens, dim = check_tokens(x, bits)
        if dim > WIDEST:
            raise QuantizerError(f"tokens of {dim} values; {self.name} has indices for {WIDEST} at most")
        keys, most = noise.token_keys(seed, tokens, first), sizes.topk_kept(dim, bits)
        side = np.zeros((tokens, 2), np.uint16)
        missing = np.zeros(dim)
        columns: list[Unsigned] = []
        codes: list[Bytes] = []
        for rows in chunks(tokens, dim):
            part = x[rows]
            scale = _scale(part, first + rows.start)
            step = _step(scale)
            token, column = np.nonzero(_largest(part, most))
            dither = noise.draws(keys[rows], noise.columns(dim))[token, column]
            level = _rounded(part[token, column], step[token], dither)
            sent = level != 0
            token, column, code = token[sent], column[sent], (level[sent] + MIDDLE).astype(np.uint8)
            side[rows, 0], side[rows, 1] = scale, np.bincount(token, minlength=len(part))
            columns.append(column.astype(np.uint16))
            codes.append(code)
            # In double precision, token after token, in an order that no library chooses.
            missing += np.add.reduce(part, axis=0, dtype=np.float64)
            missing -= np.bincount(column, _values(code, step[token]), minlength=dim)
        like = Packed(self.name, bits, 0, dim, np.empty(0, np.uint8), np.empty((0, 2), np.uint16))
        return _message(like, np.concatenate([*columns, np.empty(0, np.uint16)]), codes, side), missing


def _scale(x: Floats, first: int) -> Words:
    """Return the largest magnitude of each token as a bfloat16 pattern, rounded up, uint16 [n]."""
    largest = np.abs(x).max(axis=1)
    pattern = np.ascontiguousarray(largest).view(np.uint32)
    rounded = (pattern >> 16) + ((pattern & 0xFFFF) > 0)
    if (rounded >= INFINITY).any():
        token = int(np.argmax(rounded >= INFINITY))
        raise NotFiniteError(
            f"token {first + token} reaches {largest[token]}; only finite values can be quantized: lower the learning "
            "rate, or clip"
        )
    return rounded.astype(np.uint16)


def _step(scale: Words) -> Floats:
    """Return the distance of the levels of each token, float32 [n]; 0 where the token counts as zero."""
    return (scale.astype(np.uint32) << 16).view(np.float32) / np.float32(LEVELS)


def _largest(x: Floats, most: int) -> npt.NDArray[np.bool_]:
    """Return where the ``most`` largest magnitudes above 0 of each token are, bool [n, d]; of equal ones the first."""
    size, dim = np.abs(x), x.shape[1]
    if most == dim:
        return size > 0
    smallest = np.partition(size, dim - most, axis=1)[:, dim - most, None]
    kept = (size >= smallest) & (size > 0)
    for token in np.flatnonzero(np.count_nonzero(kept, axis=1) > most):
        ties = np.flatnonzero(size[token] == smallest[token])
        above = np.count_nonzero(size[token] > smallest[token])
        kept[token, ties[most - above :]] = False
    return kept


def _rounded(values: Floats, step: Floats, dither: Words) -> npt.NDArray[np.int16]:
    """Return the level of each value, int16 in -127..127; 0 where its token counts as zero."""
    unit = np.where(step > 0, step, np.inf).astype(np.float64)
    level = np.minimum(np.floor(np.abs(values) / unit + dither / 65536), LEVELS)
    return np.copysign(level, values).astype(np.int16)


def _values(codes: Bytes, step: Floats) -> Floats:
    return (codes.astype(np.float32) - np.float32(MIDDLE)) * step


def _message(like: Packed, columns: Unsigned, codes: Sequence[Bytes], side: Words) -> Packed:
    """Return the message of values at ``columns``, with the codes of ``codes`` one after another."""
    indices = _packed_indices(columns, sizes.index_bits(like.dim))
    return Packed(like.scheme, like.bits, len(side), like.dim, np.concatenate([indices, *codes]), side)


def _packed_indices(columns: Unsigned, width: int) -> Bytes:
    """Return the indices packed, some at a time."""
    kind = np.uint8 if width <= 8 else np.uint16
    pieces = [pack(columns[at : at + SOME].astype(kind), width) for at in range(0, len(columns), SOME)]
    return np.concatenate([*pieces, np.empty(0, np.uint8)])


def _unpacked(codes: Bytes, width: int, start: int, stop: int) -> Unsigned:
    """Return the indices of the values ``start`` to ``stop``, which packed ones begin with."""
    aligned = start - start % 8  # eight indices end with a byte
    held = codes[aligned * width // 8 : -(-stop * width // 8)]
    return unpack(held, width, stop - aligned)[start - aligned :]


def _values_of(packed: Packed, first: int, last: int) -> tuple[Unsigned, Bytes]:
    """Return index and code of every value of the tokens ``first`` to ``last``."""
    counts, width = packed.side[:, 1], sizes.index_bits(packed.dim)
    start = int(counts[:first].sum(dtype=np.int64))
    stop = start + int(counts[first:last].sum(dtype=np.int64))
    head = -(-(stop + int(counts[last:].sum(dtype=np.int64))) * width // 8)
    return _unpacked(packed.codes, width, start, stop), packed.codes[head + start : head + stop]


def _ascends(columns: Unsigned, codes: Bytes, counts: npt.NDArray[np.int64], dim: int) -> bool:
    """Whether indices ascend within each token and are below ``dim``, and no value is 0."""
    rises = columns[1:] > columns[:-1]
    starts = np.cumsum(counts)[:-1]
    rises[starts[(starts > 0) & (starts < len(columns))] - 1] = True
    return bool(rises.all() and (columns < dim).all() and ((codes != 0) & (codes != MIDDLE)).all())
