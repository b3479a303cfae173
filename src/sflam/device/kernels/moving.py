"""Operations that move, make or add up numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sflam.codec import noise
from sflam.device.frozen import Frozen
from sflam.device.kernels.scratch import Array, blocks
from sflam.errors import WireError

Ids = npt.NDArray[np.int64]


def concat(out: Array, *parts: Array, axis: int) -> None:
    """Side by side along ``axis``."""
    start = 0
    for part in parts:
        stop = start + part.shape[axis]
        np.copyto(_along(out, axis, start, stop), part)
        start = stop


def pad(out: Array, x: Array, *, axis: int, before: int) -> None:
    """Zeros before and after along ``axis``."""
    end = before + x.shape[axis]
    _along(out, axis, 0, before)[...] = 0
    np.copyto(_along(out, axis, before, end), x)
    _along(out, axis, end, out.shape[axis])[...] = 0


def take(out: Array, table: Array | Frozen, ids: Ids) -> None:
    """table[ids]."""
    _check(ids, table.shape[0])
    if isinstance(table, Frozen):
        table.take(ids.reshape(-1), out.reshape(-1, *table.shape[1:]))
    else:
        np.copyto(out, table[ids])


def take_along(out: Array, x: Array, ids: Ids, *, axis: int) -> None:
    """take_along_axis(x, ids, axis)."""
    _check(ids, x.shape[axis])
    np.copyto(out, np.take_along_axis(x, ids, axis))


def one_hot(out: Array, ids: Ids) -> None:
    """1 where the last axis counts to the id, else 0; an id out of range gives zeros."""
    out[...] = 0
    size = out.shape[-1]
    places = np.nonzero((ids >= 0) & (ids < size))
    out[(*places, ids[places])] = 1


def reduce(kind: str, out: Array, x: Array, *, axes: tuple[int, ...], keep: bool) -> None:
    """sum, mean, max, any or all over ``axes``."""
    function = {"sum": np.sum, "mean": np.sum, "max": np.max, "any": np.any, "all": np.all}[kind]
    function(x, axis=axes, keepdims=keep, out=out)  # type: ignore[operator]
    if kind == "mean":
        out /= max(1, x.size // max(1, out.size))


def dropout_mask(out: Array, *, p: float, seed: int, stream: int, first: int) -> None:
    """0 with probability p, else 1 / (1 - p), as :mod:`sflam.graph.operations` defines it.

    Numbers are counted from ``first``, so that a mini-batch run in groups of rows draws the masks of the whole.
    """
    limit, scale = int(p * 2**32), 1 / (1 - p)
    for part, words in _words(out, seed, stream, first):
        np.multiply(words >= limit, scale, out=part, casting="same_kind")


def uniform(out: Array, *, seed: int, stream: int, first: int) -> None:
    """word / 2^32, of the words that masks are drawn from."""
    for part, words in _words(out, seed, stream, first):
        np.copyto(part, words / 2**32, casting="same_kind")


def _words(out: Array, seed: int, stream: int, first: int) -> Iterator[tuple[Array, npt.NDArray[np.uint32]]]:
    """Yield the parts of ``out``, and their words."""
    key = noise.token_keys(seed, stream + 1)[stream]
    flat = out.reshape(-1)
    for [cut] in blocks(flat.shape, out.itemsize):
        start, stop, _ = cut.indices(flat.size)
        places = np.arange(first + start, first + stop).astype(np.uint32)
        places *= np.uint32(noise.COLUMN)
        yield flat[cut], noise.draws(key, places).view(np.uint32)


def _along(x: Array, axis: int, start: int, stop: int) -> Array:
    return x[(*(slice(None),) * axis, slice(start, stop))]


def _check(ids: Ids, size: int) -> None:
    if ids.size and not (0 <= int(ids.min()) and int(ids.max()) < size):
        raise WireError(
            f"an id in {int(ids.min())}..{int(ids.max())} was looked up in a table of {size}; "
            "prepare the data with the tokenizer of this job's model"
        )
