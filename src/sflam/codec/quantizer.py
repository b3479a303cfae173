"""The interface of every quantizer: encode, decode, and the size beforehand, exact or as a tight upper bound.

Shapes: n tokens (masked positions never get here), d values per token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

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
        codes: packed codes, uint8 [ceil(n d bits / 8)], first code in the lowest bits of the first byte; of a scheme of
            variable size, as many bytes as it needs, within its bound.
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
        variable = sizes.is_variable(self.scheme)
        most = sizes.codes_bytes(self.tokens, self.dim, self.bits, self.scheme if variable else "uniform")
        _expect("codes", self.codes, np.uint8, (min(self.codes.size, most) if variable else most,))
        _expect("side", self.side, np.uint16, (0 if identity else self.tokens, 2))

    @property
    def nbytes(self) -> int:
        """Bytes of codes and side information together."""
        return self.codes.nbytes + self.side.nbytes

    @property
    def payload_bits(self) -> int:
        """Bits of codes and side information, as the cost model charges them: without the spare bits of the end."""
        if sizes.is_variable(self.scheme):
            return 8 * self.nbytes
        return sizes.payload_bits(self.tokens, self.dim, self.bits, self.scheme)


class Quantizer(Protocol):
    """Encodes the tokens that cross the cut: unbiased, E[decode(encode(x, bits, seed))] = x over seeds, as the theory
    wants; or biased, where plans choose no bits by that theory.

    One with :class:`VariableSize` or :class:`Remembering` as well is asked for what these add.
    """

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
        """Return the exact bytes of codes and side information, before encoding; or the bound of a variable size."""


@runtime_checkable
class VariableSize(Protocol):
    """A quantizer whose messages differ in size."""

    def bound_bytes(self, tokens: int, dim: int, bits: int) -> int:
        """Return the most bytes of codes and side information: no message is larger, and some are as large.

        Servers admit bodies up to it and plans count on it, so it is to be tight; what is charged is what was sent.
        """


@runtime_checkable
class Remembering(Protocol):
    """A quantizer with memory, such as error feedback: of every device apart, kept where its gradients are encoded."""

    def encode_after(self, left: Floats | None, x: Floats, bits: int, seed: int) -> tuple[Packed, Floats]:
        """Encode ``x`` as ``encode`` does, with what was left out before; return what is left out now as well.

        Args:
            left: what the last call for this device and exchange returned, float32 of any one shape; None at first, and
                when the device's place changed.
            x: float32 [n, d]; n may differ from call to call.
            bits: as in ``encode``.
            seed: as in ``encode``.
        """


@runtime_checkable
class Piecewise(Protocol):
    """A quantizer that encodes and decodes every token by itself, so messages are made and read in pieces.

    The pieces' codes and sides, one after the other, are those of ``encode`` for the whole; ``decode`` of a part
    (``pieces.part``) gives the tokens of that part.
    """

    def encode_part(self, x: Floats, bits: int, seed: int, first: int) -> Packed:
        """Encode ``x`` [m, d], the tokens of a message from number ``first`` on; as ``encode`` does."""


@runtime_checkable
class Keyed(Protocol):
    """A :class:`Piecewise` quantizer whose noise is drawn token by token, from keys of :mod:`sflam.codec.noise`.

    So tokens of several messages, each with a seed of its own, may be encoded as one.
    """

    def encode_keyed(self, x: Floats, bits: int, keys: npt.NDArray[np.uint32], first: int = 0) -> Packed:
        """Encode ``x`` [n, d] with the noise of ``keys`` [n, 1]; as ``encode`` does with those of its seed."""


@runtime_checkable
class Divisible(Protocol):
    """A quantizer of variable size that encodes and decodes every token by itself; see :class:`Piecewise`."""

    def encode_part(self, x: Floats, bits: int, seed: int, first: int) -> Packed:
        """Encode ``x`` [m, d], the tokens of a message from number ``first`` on; as ``encode`` does."""

    def joined(self, parts: Sequence[Packed]) -> Packed:
        """Return the message of consecutive parts, one at least; as ``encode`` of all gives it."""

    def part(self, packed: Packed, first: int, count: int) -> Packed:
        """Return ``count`` tokens of a message from number ``first`` on."""


def offers(quantizer: Quantizer, protocol: type, method: str) -> bool:
    """Whether ``method`` of ``protocol`` may stand in for ``quantizer.encode`` and ``decode``.

    It may not where a subclass changed these and only inherits ``method``, which knows nothing of the change.
    """
    if not isinstance(quantizer, protocol):
        return False
    places = [vars(quantizer), *map(vars, type(quantizer).__mro__)]
    written = {name: _first(places, name) for name in (method, "encode", "decode")}
    return written[method] <= min(written["encode"], written["decode"])


def _first(places: Sequence[Mapping[str, Any]], name: str) -> int:
    """Return the place that ``name`` is found in first, as Python looks it up; behind all where it is nowhere."""
    return next((number for number, place in enumerate(places) if name in place), len(places))


def expect_scheme(packed: Packed, name: str) -> None:
    """Raise QuantizerError unless ``packed`` was written by scheme ``name``."""
    if packed.scheme != name:
        raise QuantizerError(f"tokens of scheme {packed.scheme!r} cannot be decoded by {name!r}")


def _expect(name: str, array: npt.NDArray[Any], dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise QuantizerError(
            f"{name} is {array.dtype} {list(array.shape)}; expected {np.dtype(dtype)} {list(shape)}"
        )
