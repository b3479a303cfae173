"""Changes of adapters on one grid for all devices of a round, so that sums of codes are sums of changes. NumPy only.

Every device rounds group g to offset_g + step_g code, with the offset and the step of g the same for all. Codes are
whole numbers, so with n_k samples of device k

    sum_k n_k change_k = offset_g sum_k n_k + step_g sum_k n_k code_k

holds exactly in whole numbers of up to b + log2(sum n_k) bits: a server that sees sum n_k code_k alone, as under secure
aggregation, has the weighted mean. A change beyond the grid becomes its nearest end: that, and that alone, is no
unbiased rounding. Grids come from what devices of the last round sent, with room to spare.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.codec import grid, noise
from sflam.codec.packing import LANES, code_lane, pack, unpack
from sflam.codec.quantizer import Floats, Packed, Words
from sflam.codec.uniform import FRACTION, fixed_point_unit
from sflam.errors import NotFiniteError, WireError
from sflam.sizes import ADAPTER_GROUP

Integers = NDArray[np.int64]
LEAST = 1 / 256
"""Least reach of a group, of the largest one's: what did not move in the last round may move in this one."""

WIDEST = 1e37
"""Most reach of a group: its grid, in bfloat16, is one of float32 still."""


def grids(reach: Floats, bits: int) -> Words:
    """Return the side [G, 2] of grids from -reach to reach, of groups; zeros, which is no grid, where nothing moved.

    Args:
        reach: [G], 0 to ``WIDEST``.
        bits: of a code.
    """
    most = float(reach.max(initial=0.0))
    if not most > 0:
        return np.zeros((len(reach), 2), np.uint16)
    ends = np.maximum(reach, np.float32(most * LEAST)).astype(np.float32)
    return grid.fit(-ends, ends, bits).side


def is_grid(side: NDArray[Any]) -> bool:
    """Whether a side gives grids at all."""
    return bool(side.any())


def encode_on(groups: Floats, side: Words, bits: int, seed: int) -> Packed:
    """Encode float32 [G, 128] on the grids of ``side``.

    Raises:
        NotFiniteError: NaN or inf.
        WireError: a side that no server writes.
    """
    if not np.isfinite(groups).all():
        raise NotFiniteError("the change of the adapters holds NaN or inf; lower the learning rate, or clip")
    if side.shape != (len(groups), 2) or not (side[:, 1] > 0).all():
        raise WireError(f"grids of {len(side)} groups, each with a step, came; {len(groups)} were agreed")
    levels = grid.restore(side, bits)
    y = groups - levels.offset
    y /= fixed_point_unit(levels.step)
    np.rint(y, out=y)
    np.clip(y, 0, ((1 << bits) - 1) * FRACTION, out=y)
    fixed = y.astype(np.uint32)
    keys = noise.token_keys(seed, len(groups))
    fixed += noise.draws(keys, noise.columns(ADAPTER_GROUP))[:, :ADAPTER_GROUP]
    fixed >>= 16
    codes = pack(fixed.astype(LANES[code_lane(bits)]).reshape(-1), bits)
    return Packed("uniform", bits, len(groups), ADAPTER_GROUP, codes, side.copy())


def sum_of_codes(changes: Sequence[Packed], counts: Sequence[int]) -> Integers:
    """Return sum_k n_k code_k, int64 [G, 128].

    Args:
        changes: of the devices, on one grid.
        counts: n_k.

    Raises:
        WireError: they are on different grids.
    """
    first = changes[0]
    total = np.zeros((first.tokens, first.dim), np.int64)
    for change, count in zip(changes, counts, strict=True):
        if change.bits != first.bits or not np.array_equal(change.side, first.side):
            raise WireError("changes on different grids have no sum of codes; quantize them on a common one")
        codes = unpack(change.codes, change.bits, total.size)
        total += count * codes.reshape(total.shape).astype(np.int64)
    return total


def sum_bits(bits: int, count: int) -> int:
    """Return the bits that hold any sum of codes of ``bits`` bits with weights that add up to ``count``."""
    return (((1 << bits) - 1) * count).bit_length()


def weighted_mean(total: Integers, count: int, side: Words, bits: int) -> NDArray[np.float64]:
    """Return the weighted mean of changes [G, 128] from the sum of their codes, weights adding up to ``count``."""
    levels = grid.restore(side, bits)
    mean: NDArray[np.float64] = levels.offset.astype(np.float64) + levels.step * (total / count)
    return mean
