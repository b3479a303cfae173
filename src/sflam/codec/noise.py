"""Dither for stochastic rounding: 16-bit draws that any machine computes from (seed, token, column) alone.

All arithmetic is modulo 2^32, so NumPy, torch, C or JavaScript give the same draws::

    mix(x):  x ^= x >> 16;  x *= 0x7FEB352D;  x ^= x >> 15;  x *= 0x846CA68B;  x ^= x >> 16
    low, high = halves of splitmix64(seed)
    key[token] = mix(mix(token ^ low) ^ high)
    word[token, c] = mix(key[token] ^ c * 0x9E3779B9)
    draw[token, 2 c], draw[token, 2 c + 1] = low, high 16 bits of word[token, c]

``mix`` is lowbias32 (Wellons, "Prospecting for hash functions", 2018), a bijection in which every input bit
flips every output bit with a probability close to 1/2; splitmix64 is from Steele, Lea, Flood (OOPSLA 2014).
A token's draws do not depend on how many tokens are encoded with it, or in which chunks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sflam.codec.quantizer import Words
from sflam.errors import QuantizerError

Words32 = npt.NDArray[np.uint32]

MIX_1, MIX_2 = 0x7FEB352D, 0x846CA68B
COLUMN = 0x9E3779B9  # 2^32 / golden ratio: neighbouring columns land far apart


def token_keys(seed: int, tokens: int, first: int = 0) -> Words32:
    """Return the keys of the tokens from number ``first`` on, uint32 [tokens, 1].

    Raises:
        QuantizerError: ``seed`` is not in 0..2^64 - 1.
    """
    keys = np.arange(first, first + tokens, dtype=np.uint32)[:, None]
    for half in _halves(seed):
        keys = _mix(keys ^ np.uint32(half))
    return keys


def keys_of_each(seeds: Sequence[int], counts: Sequence[int]) -> Words32:
    """Return ``token_keys(seed, count)`` of several messages one after another, uint32 [sum of counts, 1].

    Raises:
        QuantizerError: as there.
    """
    ends = np.cumsum(counts)
    numbers = np.arange(int(ends[-1]), dtype=np.uint32)
    keys = numbers - np.repeat(ends - np.array(counts), counts).astype(np.uint32)
    for halves in np.array([_halves(seed) for seed in seeds], np.uint32).T:
        keys = _mix(keys ^ np.repeat(halves, counts))
    return keys[:, None]


def columns(dim: int) -> Words32:
    """Return the column constants of the ceil(dim / 2) words that hold a token's draws."""
    return np.arange((dim + 1) // 2, dtype=np.uint32) * np.uint32(COLUMN)


def draws(keys: Words32, columns: Words32) -> Words:
    """Return the draws of the tokens with these keys, uint16 [tokens, dim], or dim + 1 where dim is odd."""
    return _mix(keys ^ columns).view(np.uint16)


def _mix(x: Words32) -> Words32:
    """Replace every word of ``x`` by its hash, and return ``x``."""
    shifted = np.empty_like(x)
    for shift, factor in ((16, MIX_1), (15, MIX_2)):
        x ^= np.right_shift(x, shift, out=shifted)
        x *= np.uint32(factor)
    x ^= np.right_shift(x, 16, out=shifted)
    return x


def _halves(seed: int) -> tuple[int, int]:
    if not 0 <= seed < 1 << 64:
        raise QuantizerError(f"seed {seed} is out of range; it must be in 0..2^64 - 1")
    mixed = _splitmix64(seed)
    return mixed & 0xFFFFFFFF, mixed >> 32


def _splitmix64(seed: int) -> int:
    word = 1 << 64
    z = (seed + 0x9E3779B97F4A7C15) % word
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % word
    z = (z ^ z >> 27) * 0x94D049BB133111EB % word
    return z ^ z >> 31
