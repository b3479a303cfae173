"""What a device trained in a round, in few bits: the change of its adapters since the round began. NumPy only.

The device knows where it began, for the server sent it, so the change alone travels: P values laid end to end, in
groups of ``sizes.ADAPTER_GROUP`` with zeros behind the last, each group a token of the scheme ``uniform``. Rounding is
stochastic, so E[what arrives] = what was trained; and a change is far smaller than the values themselves, and so is its
grid. Every operation is elementwise, so simulated and served devices give the same bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.codec.common_grid import encode_on, is_grid
from sflam.codec.legs import ADAPTERS, noise_seed
from sflam.codec.quantizer import Floats, Packed, Words
from sflam.codec.uniform import Uniform
from sflam.errors import WireError
from sflam.sizes import ADAPTER_GROUP, adapter_groups

LARGEST = float(np.finfo(np.float32).max)
_UNIFORM = Uniform()

Values = NDArray[Any]


def encode_change(
    values: Values,
    start: Values,
    bits: int,
    *,
    seed: int,
    round: int,
    device: int,
    side: Words | None = None,
) -> Packed:
    """Return the change from ``start`` to ``values`` (both [P], float32 or float64) in ``bits`` bits a value.

    Args:
        values: what was trained.
        start: what the device was sent.
        bits: 1..16.
        seed: of the run.
        round: its number.
        device: its number.
        side: [G, 2] the grids of all devices, from :mod:`sflam.codec.common_grid`; without any each group has its own.

    Raises:
        NotFiniteError: a change that is NaN, inf, or beyond float32.
    """
    tokens = change_groups(values, start)
    noise = noise_seed(seed, round, 0, device, ADAPTERS)
    if side is not None and is_grid(side):
        return encode_on(tokens, side, bits, noise)
    return _UNIFORM.encode(tokens, bits, noise)


def change_groups(values: Values, start: Values) -> Floats:
    """Return the change from ``start`` to ``values`` (both [P]) in groups, zeros behind the last, float32 [G, 128]."""
    groups = np.zeros(adapter_groups(values.size) * ADAPTER_GROUP, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # refused by the quantizer
        np.subtract(values, start, out=groups[: values.size])
    return groups.reshape(-1, ADAPTER_GROUP)


def decode_change(packed: Packed, start: Values) -> Values:
    """Return what arrives of what was trained, finite values like ``start`` [P].

    Raises:
        WireError: another number of values, or another scheme.
    """
    found = packed.scheme, packed.tokens, packed.dim
    agreed = _UNIFORM.name, adapter_groups(start.size), ADAPTER_GROUP
    if found != agreed:
        raise WireError(f"a change of scheme, groups, size {found} came; {agreed} were agreed")
    change = _UNIFORM.decode(packed).reshape(-1)[: start.size]
    with np.errstate(over="ignore"):  # of what an honest device never sends
        arrived: Values = np.clip(start + change.astype(start.dtype), -LARGEST, LARGEST)
    return arrived
