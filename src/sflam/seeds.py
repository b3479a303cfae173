"""One seed in the config; every random draw names its stream.

``derive(seed, "partition")`` and ``derive(seed, "quantizer", round, step, device)`` are unrelated numbers,
so changing how one part draws never shifts another part's draws.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive(seed: int, stream: str, *indices: int) -> int:
    """Return a 63-bit seed for the named stream and position, the same on every machine (SHA-256)."""
    text = ":".join([str(seed), stream, *map(str, indices)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, stream: str, *indices: int) -> np.random.Generator:
    """Return a NumPy generator for the named stream and position."""
    return np.random.default_rng(derive(seed, stream, *indices))
