"""Runs graphs in one arena: memory planned before, no allocation but the arrays that are returned."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sflam.device.kernels.table import Draw
from sflam.device.memory import Pages
from sflam.device.placement import Offsets, place
from sflam.device.program import Given, Program
from sflam.device.rewriting import rewritten
from sflam.device.storage import plan
from sflam.errors import GraphError
from sflam.graph.graph import Graph

Array = npt.NDArray[Any]

Key = TypeVar("Key")
Kept = TypeVar("Kept")

PROGRAMS = 8  # bound programs kept: about 110 kB each for a block of ViT-B
PLACED = 64  # sizes whose offsets are kept: about 2 kB each


class Arena:
    """One piece of memory for every graph of a device half; they run one after the other."""

    def __init__(self) -> None:
        self._pages = Pages(0)
        self.programs: OrderedDict[tuple[int, int], Program] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Bytes that it holds, resident or not."""
        return self._pages.array.nbytes

    def reserve(self, nbytes: int) -> Array:
        """Return memory of at least ``nbytes``; when it grows, the programs bound to the old one go."""
        if self.nbytes < nbytes:
            self.programs.clear()
            self._pages = Pages(0)
            self._pages = Pages(nbytes)
        return self._pages.array

    def give_back(self) -> None:
        """Let the system take the memory until the next run; what is bound to it stays."""
        self._pages.give_back()


@dataclass(frozen=True)
class RunBytes:
    """What a run takes: the arena (of which ``alive`` are in use at the fullest moment) and the returned arrays."""

    arena: int
    alive: int
    results: int


class Engine:
    """Runs one graph, for any n, in float32 or float64.

    Frozen weights may be arrays, or :class:`~sflam.device.frozen.Frozen` tensors, which are then read a slice at a
    time. Several engines may share an arena, as long as they run one after the other.
    """

    def __init__(self, graph: Graph, dtype: npt.DTypeLike = np.float32, arena: Arena | None = None) -> None:
        self.graph, self.dtype = graph, np.dtype(dtype)
        self._run = rewritten(graph)
        self.arena = arena or Arena()
        self._plan = plan(self._run)
        self._placed: OrderedDict[int, Offsets] = OrderedDict()

    def run(self, inputs: Given, n: int, seed: int = 0, first: int = 0) -> dict[str, Array]:
        """Return the outputs, by name.

        Equal ``seed`` gives equal dropout masks; ``first`` is how many of the n's of the mini-batch came before
        this run, so that its masks are those of the mini-batch in one run.

        Raises:
            GraphError: an input is missing, or is not what the graph takes for this n.
        """
        if missing := [name for name in self.graph.inputs if name not in inputs]:
            raise GraphError(f"the input {missing[0]} is missing; a run takes {', '.join(self.graph.inputs)}")
        with np.errstate(all="ignore"):  # infinities of masks and divergence are looked at by the caller
            return self._program(n).run(inputs, Draw(seed, first, n))

    def bytes(self, n: int) -> RunBytes:
        """Return what a run for n will take; nothing is run."""
        placed = self._place(n)
        return RunBytes(placed.arena, placed.alive, placed.results)

    def _place(self, n: int) -> Offsets:
        if n not in self._placed:
            self._placed[n] = place(self._run, self._plan, n, self.dtype.itemsize)
        return _fresh(self._placed, n, PLACED)

    def _program(self, n: int) -> Program:
        offsets = self._place(n)
        memory = self.arena.reserve(offsets.arena)
        programs, key = self.arena.programs, (id(self), n)
        if key not in programs:
            programs[key] = Program(self._run, self._plan, offsets, n, self.dtype, memory)
        return _fresh(programs, key, PROGRAMS)


def _fresh(kept: OrderedDict[Key, Kept], key: Key, most: int) -> Kept:
    """Return an entry as the youngest, and forget the oldest above ``most``."""
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
    return kept[key]
