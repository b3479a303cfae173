"""A device's change of its adapters as whole numbers that are summed, and the sum as a mean change. NumPy only.

Under secure aggregation a server sees sums alone, so it learns from sums, too, how wide the next round's grids must be:
each device marks, group by group, how far its change went, and the sum counts the devices at each mark.

Shapes: P values, G groups of them, M marks of a group. The grid of group g reaches from -R_g to R_g.

    mark 0                   at most R_g / 2^(M - 2)
    mark m, 0 < m < M - 1    above R_g / 2^(M - 1 - m), at most twice that
    mark M - 1               beyond R_g
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sflam.codec.adapter_change import Values, change_groups, encode_change
from sflam.codec.common_grid import WIDEST, Integers, weighted_mean
from sflam.codec.grid import restore
from sflam.codec.packing import unpack
from sflam.codec.quantizer import Floats, Packed, Words
from sflam.sizes import ADAPTER_GROUP, SUM_MARKS

Numbers = NDArray[np.uint64]
NARROWEST = 1e-12
"""Least reach of a group, which no change of float32 adapters is below for long."""
SPARE = 2.0
"""How much further than they went in this round devices may go in the next."""
_ENDS = 2.0 ** -np.arange(SUM_MARKS - 2, -1, -1)
"""Of the marks but the last, over R_g."""


def counted_change(
    values: Values, start: Values, side: Words, bits: int, *, seed: int, round: int, device: int
) -> tuple[Numbers, Numbers]:
    """Return what a device counts of its change from ``start`` to ``values`` (both [P]): its codes and its marks."""
    change = encode_change(values, start, bits, side=side, seed=seed, round=round, device=device)
    return codes_of(change, len(values)), marks_of(values, start, side, bits)


def codes_of(change: Packed, count: int) -> Numbers:
    """Return the codes of the first ``count`` values of a change, [P]."""
    return unpack(change.codes, change.bits, change.tokens * change.dim)[:count].astype(np.uint64)


def marks_of(values: Values, start: Values, side: Words, bits: int) -> Numbers:
    """Return 1 at the mark of each group of the change from ``start`` to ``values`` (both [P]), else 0: [M G]."""
    reach = _reach(side, bits)
    farthest = np.abs(change_groups(values, start)).max(axis=1).astype(np.float64)
    found = np.zeros((len(reach), SUM_MARKS), np.uint64)
    found[np.arange(len(reach)), (farthest[:, None] > _ENDS * reach[:, None]).sum(axis=1)] = 1
    return found.reshape(-1)


def next_reach(marks: Numbers, side: Words, bits: int) -> Floats:
    """Return how far groups may go in the next round, [G], from the sum of all devices' :func:`marks_of`."""
    reach = _reach(side, bits)
    each = marks.reshape(len(reach), SUM_MARKS) > 0
    highest = np.where(each.any(axis=1), SUM_MARKS - 1 - each[:, ::-1].argmax(axis=1), 0)
    ends = np.append(_ENDS, 2.0)[highest]
    found: Floats = np.clip(SPARE * ends * reach, NARROWEST, WIDEST).astype(np.float32)
    return found


def mean_change(codes: Integers, weight: int, side: Words, bits: int) -> NDArray[np.float64]:
    """Return the mean change [P] of the sum of all devices' codes, each times its weight, by the sum of weights."""
    padded = np.pad(codes, (0, -len(codes) % ADAPTER_GROUP)).reshape(-1, ADAPTER_GROUP)
    return weighted_mean(padded, weight, side, bits).reshape(-1)[: len(codes)]


def _reach(side: Words, bits: int) -> NDArray[np.float64]:
    """Return R_g of grids, [G]."""
    reach: NDArray[np.float64] = -restore(side, bits).offset[:, 0].astype(np.float64)
    return reach
