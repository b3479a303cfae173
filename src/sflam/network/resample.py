"""Measured samples at times of their own, on the even times that rounds have. K devices, N samples, R even times.

The step is the (lower) median of the differences between samples of a device that follow each other. A sample goes to
the nearest even time; several there are averaged. Where none is there, the value between its neighbours is taken, for
up to ``GAP`` times in a row; a longer gap, before a device's first sample and after its last one too, is an outage,
and so is a value of 0. A plan needs some channel, so ``OUTAGE`` of the device's least value stands for an outage.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sflam.network.network import Floats

GAP = 3
"""Most even times in a row that are filled from what was measured around them."""
OUTAGE = 0.01
"""Of a device's least value, what stands for no channel at all."""
JITTER = 1e-3
"""Relative difference between steps that are equal."""
MOST = 10**7
"""Most values of a table."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Even:
    """Samples on even times.

    Attributes:
        times: [R], in the unit of the samples.
        values: [R, K], above 0.
        step: between two times; 0 for a single one.
        row: [N] the place of each sample's even time.
        moved: [N] by how much each sample was moved.
        filled: [R, K] whether a value was taken from its neighbours.
        outage: [R, K] whether a value stands for an outage.
        merged: samples that were averaged with others.
    """

    times: Floats
    values: Floats
    step: float
    row: NDArray[np.int64]
    moved: Floats
    filled: NDArray[np.bool_]
    outage: NDArray[np.bool_]
    merged: int

    @property
    def changed(self) -> bool:
        """Whether anything is not as it was measured."""
        return bool(
            self.filled.any() or self.outage.any() or self.merged or (self.moved > JITTER * self.step).any()
        )


def step_of(device: NDArray[np.int64], times: Floats) -> float:
    """Return the step between samples of a device that follow each other, the median; 0 where none follows another."""
    order = np.lexsort((times, device))
    apart = np.diff(times[order])[np.diff(device[order]) == 0]
    apart = apart[apart > 0]
    return float(np.sort(apart)[(len(apart) - 1) // 2]) if len(apart) else 0.0


def resampled(device: NDArray[np.int64], times: Floats, values: Floats, count: int) -> Even:
    """Return samples on even times.

    Args:
        device: [N] whose each sample is, from 0 to ``count`` - 1; each has at least one.
        times: [N].
        values: [N], 0 or more.
        count: K.

    Raises:
        ValueError: so many even times that they are no rounds.
    """
    step, begin = step_of(device, times), float(times.min())
    if not step:
        step = float(np.ptp(times))
    length = float(np.ptp(times)) / step if step else 0.0
    if not length * count < MOST:
        raise ValueError(f"{length:.3g} steps of {step:g}")
    row = np.floor((times - begin) / step + 0.5).astype(np.int64) if step else np.zeros(len(times), np.int64)
    rounds = int(row.max()) + 1
    even: Floats = np.asarray(begin + step * np.arange(rounds), np.float64)
    sums, counts = np.zeros((rounds, count)), np.zeros((rounds, count), np.int64)
    np.add.at(sums, (row, device), values)
    np.add.at(counts, (row, device), 1)
    with np.errstate(invalid="ignore"):
        table = sums / counts
    filled, outage = np.zeros(table.shape, bool), table == 0
    for own in range(count):
        known = np.flatnonzero(counts[:, own])
        table[:, own], filled[:, own], gone = _filled(table[:, own], known)
        outage[:, own] |= gone
        least = table[:, own][(table[:, own] > 0) & ~outage[:, own]]
        table[outage[:, own], own] = OUTAGE * least.min() if len(least) else np.nan
    return Even(
        times=even,
        values=table,
        step=step,
        row=row,
        moved=np.abs(times - even[row]),
        filled=filled,
        outage=outage,
        merged=int((counts - 1).clip(0).sum()),
    )


def _filled(values: Floats, known: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """Return a device's values [R] with short gaps filled; which were; and which times no sample is near enough for."""
    every = np.arange(len(values))
    before = known[np.clip(np.searchsorted(known, every, side="right") - 1, 0, None)]
    after = known[np.clip(np.searchsorted(known, every), None, len(known) - 1)]
    missing = (before != every) & (after != every)
    inner = missing & (before < every) & (every < after)
    length = np.where(inner, after - before - 1, np.where(every > after, len(values) - 1 - after, before))
    # one whose neighbour was an outage belongs to it
    dark = (values[before] == 0) | (values[after] == 0)
    gone = missing & ((length > GAP) | dark)
    fill = missing & ~gone
    found = values.copy()
    found[missing] = np.interp(every[missing], known, values[known])
    return found, fill, gone
