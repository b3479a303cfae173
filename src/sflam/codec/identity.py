"""Raw floats: the reference that every quantizer is compared with, exact and four to eight times larger."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sflam import sizes
from sflam.codec.quantizer import Packed, expect_scheme
from sflam.errors import NotFiniteError, QuantizerError

WIDTHS: dict[int, type[np.floating[Any]]] = {32: np.float32, 64: np.float64}


class Identity:
    """Sends float32 or float64 as it is; ``bits`` and ``seed`` change nothing."""

    name = sizes.IDENTITY

    def nbytes(self, tokens: int, dim: int, bits: int) -> int:
        """Return the exact bytes: 8 per value where ``bits`` is 64, else 4."""
        return sizes.payload_bytes(tokens, dim, bits, self.name)

    def encode(self, x: npt.NDArray[np.floating[Any]], bits: int, seed: int) -> Packed:
        """Encode float32 or float64 [n, d]. See ``Quantizer.encode``."""
        return self.encode_part(x, bits, seed, 0)

    def encode_part(self, x: npt.NDArray[np.floating[Any]], bits: int, seed: int, first: int) -> Packed:
        """Encode the tokens from number ``first`` on. See ``Piecewise.encode_part``."""
        if x.dtype not in WIDTHS.values() or x.ndim != 2:
            raise QuantizerError(f"got {x.dtype} {list(x.shape)}; give float32 or float64 [n, d]")
        expect_finite(x, first)
        tokens, dim = x.shape
        codes = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
        return Packed(self.name, x.itemsize * 8, tokens, dim, codes, np.empty((0, 2), np.uint16))

    def decode(self, packed: Packed) -> npt.NDArray[Any]:
        """Return [n, d] in the type that was encoded, a view of the codes. See ``Quantizer.decode``."""
        expect_scheme(packed, self.name)
        x = packed.codes.view(WIDTHS[packed.bits]).reshape(packed.tokens, packed.dim)
        expect_finite(x)
        return x

    def check_side(self, packed: Packed) -> None:
        """Accept: there is no side information. See ``Quantizer.check_side``."""


def expect_finite(x: npt.NDArray[np.floating[Any]], first: int = 0) -> None:
    """Raise QuantizerError at the first token (row) that holds NaN or inf; tokens count from ``first``."""
    finite = np.isfinite(x).all(axis=1)
    if not finite.all():
        raise NotFiniteError(
            f"token {first + int(np.argmin(finite))} holds NaN or inf; only finite values can cross the cut: "
            "lower the learning rate, or clip"
        )
