"""What a device half takes of memory, before it runs, and how a mini-batch is run so that it fits a limit.

The formula is :mod:`sflam.lean_memory`'s; what a group of rows takes at its fullest is exact here: it is the plan that
the engines run by. P trained values, B rows, d hidden size, n as of a graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sflam.data.images import ImageSpec
from sflam.device.engines import Engines
from sflam.device.half import Grouping
from sflam.errors import ServeError
from sflam.graph.size import count_of
from sflam.lean_memory import MEGABYTE, How, LeanStep
from sflam.learn.settings import LearnSettings
from sflam.sizes import HEADER_BYTES, token_body_bytes

GIVEN = 100 * MEGABYTE
"""What a device may take where its user sets no limit, as far as it can."""
SPARE = 0.02
"""Share of a limit that is spent on nothing but what is needed: what is counted was up to 1 % less than measured."""
BETTER: tuple[dict[str, Any], ...] = (
    {"head": 32},
    {"head": 128},
    {"head": 512},
    {"head": 0},
    {"file": False},
    {"rows": 2},
    {"inputs": True},
    {"streaming": False},
    {"pages": True},
    {"rows": 4},
    {"rows": 8},
    {"rows": 16},
    {"rows": 32},
)
"""What memory is spent on, the most useful first. Of a large model eight images at a time run no faster than two; of a
small one every run of a graph costs as much as its numbers do."""


@dataclass(frozen=True)
class RunPlan:
    """How a device runs.

    Attributes:
        grouping: of a mini-batch.
        keep_pages: whether frozen weights stay in memory, or are read again in every pass.
        streaming: whether answers are decoded while they come, instead of held whole.
        nbytes: its peak.
    """

    grouping: Grouping
    keep_pages: bool
    streaming: bool
    nbytes: int

    def described(self) -> str:
        """Return what a user should know of it."""
        grouping = self.grouping
        return (
            f"peak about {math.ceil(self.nbytes / MEGABYTE)} MB: weights "
            f"{'kept in memory' if self.keep_pages else 'read again in every pass'}, activations "
            f"{'kept' if grouping.keep_inputs else 'made again'} for the backward, moments in "
            f"{'memory' if grouping.moments is None else 'a file'}, "
            f"{f'head for {grouping.head} tokens at a time, ' if grouping.head else ''}answers "
            f"{'decoded as they come' if self.streaming else 'held whole'}"
        )


@dataclass(frozen=True)
class Footprint:
    """What there is to count.

    Attributes:
        engines: of the graphs.
        learn: decides how many vectors there are.
        spec: what images look like; None for texts.
        rows: B, the most of a mini-batch.
        longest: tokens of the longest row.
        segment: bytes of the frozen weights.
        body: bytes of the tokens of a mini-batch in one message.
        moments: folder for the moments of the optimiser, where they do not fit.
        resident: bytes of the process as it stands.
        streams: whether the scheme lets answers be decoded while they come.
        changes: whether the change of the adapters goes up.
    """

    engines: Engines
    learn: LearnSettings
    spec: ImageSpec | None
    rows: int
    longest: int
    segment: int
    body: int
    moments: Path
    resident: int
    streams: bool = True
    changes: bool = False

    @property
    def step(self) -> LeanStep:
        """What a training step is made of."""
        bundle, width = self.engines.bundle, self.engines.dtype.itemsize
        learn = self.learn
        fedprox = learn.practice.local == "fedprox"
        return LeanStep(
            text=bundle.text,
            rows=self.rows,
            longest=self.longest,
            cut=bundle.cut,
            token=bundle.dim * width,
            trains=any(kind.joint for kind in self.engines.kinds),
            trained=sum(math.prod(shape) for shape in bundle.trained.values()) * width,
            moments=learn.optimizer_slots - fedprox,
            fedprox=fedprox,
            keeps=learn.practice.state == "keep",
            segment=self.segment,
            body=self.body,
            streams=self.streams,
            resident=self.resident,
            causal=bundle.causal and self.engines.head is not None,
            forward=lambda rows: (
                self.engines.bytes(self._n(rows), joint=False, head=False) + self._sample(rows)
            ),
            joint=lambda rows: self.engines.bytes(self._n(rows), head=False) + self._sample(rows),
            finish=self._finish,
            around=self._around,
            changes=self.changes,
        )

    def nbytes(self, how: How) -> int:
        """Return the peak."""
        return self.step.held(how).total

    def choose(self, limit: int | None) -> RunPlan:
        """Return how to run within ``limit`` bytes; without one within what a device is given, or as little as it can.

        Raises:
            ServeError: it cannot; the number that it needs is named.
        """
        step = self.step
        least = step.held(step.least).total
        if limit is not None and least > limit:
            needed = math.ceil(least / MEGABYTE)
            raise ServeError(
                f"--memory {limit // MEGABYTE} MB is less than this device's part of the job takes, {needed} MB at "
                f"least; give --memory {needed}, or let the server cut the model earlier"
            )
        how, most = step.least, GIVEN if limit is None else limit
        for better in BETTER:
            tried = replace(how, **better)
            if "head" in better and not step.causal:
                continue
            if "rows" in better:
                tried = replace(tried, rows=how.rows if step.text else min(tried.rows, self.rows))
            if (
                tried != how
                and step.held(tried).total <= most * (1 - SPARE)
                and not (tried.inputs and not step.trains)
            ):
                how = tried
        grouping = Grouping(how.rows, how.inputs, self.moments if how.file else None, how.head)
        return RunPlan(grouping, how.pages, how.streaming, step.held(how).total)

    def _finish(self, rows: int, together: int) -> int:
        head, n = self.engines.head, self._n(rows)
        if head is None:
            return 0
        found = head.bytes(min(together or n, n - 1) if self.engines.bundle.causal else n)
        return found.arena + found.results

    def _n(self, rows: int) -> int:
        return self.longest if self.engines.bundle.text else rows

    def _around(self, rows: int) -> int:
        """Return the bytes of what the embedding hands to the blocks beside the activations."""
        piece, n = self.engines.bundle.embed, self._n(rows)
        total = 0
        for name, source in piece.binding.outputs.items():
            if source.name:
                value = piece.graph.values[name]
                width = self.engines.dtype.itemsize if value.numbers == "float" else 8
                total += count_of(value.shape).at(n) * width
        return total

    def _sample(self, rows: int) -> int:
        """Return the bytes of the pixels of ``rows`` images on their way to a graph."""
        if self.spec is None:
            return 16 * self.longest
        values = rows * self.spec.channels * self.spec.size**2
        # uint8 twice, float32, then the graph's own type
        return values * (2 + 4 + (0 if self.engines.dtype == np.float32 else 8))


def body_bytes(tokens: int, dim: int, bits: int, scheme: str) -> int:
    """Return the bytes of a message with so many tokens, at most."""
    return HEADER_BYTES + token_body_bytes(tokens, dim, bits, scheme)
