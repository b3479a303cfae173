"""Tokens that are hard to quantize: float32 [n, d], every kind of row beside each other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from sflam.codec.quantizer import Packed

Floats = npt.NDArray[np.float32]
BITS = st.integers(1, 16)
SEEDS = st.integers(0, 2**63 - 1)
SMALLEST = float(np.finfo(np.float32).smallest_subnormal)
ROWS = (
    "normal",
    "zero",
    "constant",
    "signed zeros",
    "subnormal",
    "tiny",
    "huge",
    "shifted",
    "integers",
    "spike",
)


def row(kind: str, dim: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    normal = rng.standard_normal(dim)
    match kind:
        case "zero":
            return np.zeros(dim)
        case "constant":
            return np.full(dim, rng.standard_normal() * 10.0 ** rng.integers(-44, 38))
        case "signed zeros":
            return np.where(normal > 0, 0.0, -0.0)
        case "subnormal":
            return rng.integers(-9, 9, dim) * SMALLEST
        case "tiny":
            return normal * 1e-38
        case "huge":
            return np.clip(normal, -2, 2) * 5e37
        case "shifted":
            return 1e4 + normal
        case "integers":
            return rng.integers(-3, 4, dim).astype(np.float64)
        case "spike":
            return normal * 1e-30 + 1e30 * (np.arange(dim) == rng.integers(dim))
    return normal


@st.composite
def tokens(draw: st.DrawFn, most: int = 12) -> Floats:
    """0..most tokens of 1..40 values, rows of any kinds beside each other."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dim = draw(st.integers(1, 40))
    kinds = draw(st.lists(st.sampled_from(ROWS), max_size=most))
    return np.array([row(kind, dim, rng) for kind in kinds], np.float64).reshape(-1, dim).astype(np.float32)


def grid_of(packed: Packed) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Offset and step [n, 1] by the definition of bfloat16: the upper half of a float32."""
    offset, step = (packed.side.astype(np.uint32) << 16).view(np.float32).astype(np.float64).T
    return offset[:, None], step[:, None]
