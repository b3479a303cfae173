"""The interface of every quantizer: encode, decode, and the exact size beforehand.

Shapes: n tokens (masked positions never get here), d values per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sflam import sizes
from sflam.errors import QuantizerError

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Packed:
    """Encoded tokens, as they travel.

    Attributes:
        scheme: name of the scheme that wrote them.
        bits: bits per value: 1..16, or the float width (32, 64) for ``identity``.
        tokens: number of tokens n.
        dim: values per token d.
        codes: packed codes, uint8 [ceil(n d bits / 8)], first code in the lowest bits of the first byte.
        side: uint16 [n, 2], the bfloat16 bit patterns of offset and step; [0, 2] for ``identity``.

    Raises:
        QuantizerError: the arrays do not have these types and sizes.
    """

    scheme: str
    bits: int
    tokens: int
    dim: int
    codes: Bytes
    side: Words

    def __post_init__(self) -> None:
        identity = self.scheme == sizes.IDENTITY
        if not (self.bits in (32, 64) if identity else sizes.MIN_BITS <= self.bits <= sizes.MAX_BITS):
            allowed = "32 or 64" if identity else f"{sizes.MIN_BITS}..{sizes.MAX_BITS}"
            raise QuantizerError(f"{self.scheme} tokens of {self.bits} bits; bits must be {allowed}")
        if self.tokens < 0 or self.dim < 1:
            raise QuantizerError(f"{self.tokens} tokens of {self.dim} values; give [n >= 0, d >= 1]")
        _expect("codes", self.codes, np.uint8, (sizes.codes_bytes(self.tokens, self.dim, self.bits),))
        _expect("side", self.side, np.uint16, (0 if identity else self.tokens, 2))

    @property
    def nbytes(self) -> int:
        """Bytes of codes and side information together."""
        return self.codes.nbytes + self.side.nbytes


class Quantizer(Protocol):
    """Encodes the tokens that cross the cut, unbiased: E[decode(encode(x, bits, seed))] = x over seeds."""

    @property
    def name(self) -> str:
        """The name in ``quant.scheme`` and in ``Packed.scheme``."""

    def encode(self, x: Floats, bits: int, seed: int) -> Packed:
        """Encode float32 [n, d]; the same seed gives the same bytes on every machine.

        Raises:
            QuantizerError: wrong shape or type, ``bits`` or ``seed`` out of range, NaN, inf, or a token whose
                range float32 cannot hold.
        """

    def decode(self, packed: Packed) -> Floats:
        """Return float32 [n, d].

        Raises:
            QuantizerError: another scheme's tokens, or an offset or step that no encoder writes.
        """

    def check_side(self, packed: Packed) -> None:
        """Refuse side information that no encoder writes, at a cost of a few operations a token.

        Raises:
            QuantizerError: such side information; ``decode`` would refuse it as well.
        """

    def nbytes(self, tokens: int, dim: int, bits: int) -> int:
        """Return the exact bytes of codes and side information, before encoding."""


def expect_scheme(packed: Packed, name: str) -> None:
    """Raise QuantizerError unless ``packed`` was written by scheme ``name``."""
    if packed.scheme != name:
        raise QuantizerError(f"tokens of scheme {packed.scheme!r} cannot be decoded by {name!r}")


def _expect(name: str, array: npt.NDArray[Any], dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise QuantizerError(
            f"{name} is {array.dtype} {list(array.shape)}; expected {np.dtype(dtype)} {list(shape)}"
        )
