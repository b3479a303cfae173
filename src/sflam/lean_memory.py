"""The peak of a device without torch, from plain numbers, for every way to run.

Peak = the process before it trains + frozen pages kept + trained vectors + the fullest phase: messages, and what graphs
work with for one group of rows. What a phase held is given back to the system before the next.
The one formula of the device itself, which counts its graphs (``device.footprint``) and chooses how to run, and of the
planner, the simulator and the start-up note, which know a model by its config.json alone (``cost.lean_device``) and say
the least. Bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MEGABYTE = 1 << 20
"""What a megabyte of memory is here, as for the system's own tools."""
SLACK = 2 * MEGABYTE
"""What is not counted one by one: buffers of sockets and files, headers, small arrays, gaps of the allocator."""
FEW = 8
"""Tokens of a text that the head of a language model sees at a time, where memory is shortest."""


@dataclass(frozen=True)
class How:
    """A way to run, which begins with the least memory.

    Attributes:
        rows: images of a group.
        file: whether the moments of the optimiser lie in a file.
        head: tokens of a text that the head of a language model sees at a time; 0 for all.
        streaming: whether answers are decoded while they come.
        inputs: whether the inputs of the blocks stay from forward to backward.
        pages: whether frozen weights stay in memory.
    """

    rows: int = 1
    file: bool = True
    head: int = 0
    streaming: bool = True
    inputs: bool = False
    pages: bool = False


@dataclass(frozen=True, kw_only=True)
class Held:
    """The bytes of what a peak is made of.

    Attributes:
        weights: frozen pages that are kept.
        trained: trained numbers, their gradient, copies and moments.
        bodies: messages.
        alive: of a group of rows: what the graphs work with, and what is kept for the backward; copies on their way.
        process: what the process takes before, and what is not counted one by one.
    """

    weights: int
    trained: int
    bodies: int
    alive: int
    process: int

    @property
    def total(self) -> int:
        """The peak."""
        return self.weights + self.trained + self.bodies + self.alive + self.process


@dataclass(frozen=True, kw_only=True)
class LeanStep:
    """What a training step of one device half is made of.

    Attributes:
        text: whether rows run one by one at their own length, as texts do, or as many images at once as fit.
        rows: most of a mini-batch.
        longest: tokens of the longest row.
        cut: blocks.
        token: bytes of a token's activations.
        trains: whether anything below the cut is trained.
        trained: bytes of the trained numbers.
        moments: vectors of as many numbers that the optimiser keeps.
        fedprox: whether a round's start is kept.
        keeps: whether moments are kept from round to round.
        changes: whether the change since a round's start goes up, so that the start is kept beside FedProx's.
        segment: bytes of the frozen weights.
        body: bytes of a message.
        streams: whether the scheme lets answers be decoded while they come.
        resident: bytes of the process before it trains.
        causal: whether the half ends in the head of a language model, which may see some tokens at a time.
        forward: rows at a time -> bytes that the graphs of embedding and forward work with, and of what they return.
        joint: rows at a time -> the same of those of forward and backward together.
        finish: rows at a time, and tokens that the head sees at a time (0 for all) -> the same of head and loss; 0
            where labels are not at home.
        around: rows at a time -> bytes of what the embedding hands to every block.
    """

    text: bool
    rows: int
    longest: int
    cut: int
    token: int
    trains: bool
    trained: int
    moments: int
    fedprox: bool
    keeps: bool
    segment: int
    body: int
    streams: bool
    resident: int
    causal: bool
    forward: Callable[[int], int]
    joint: Callable[[int], int]
    finish: Callable[[int, int], int]
    around: Callable[[int], int]
    changes: bool = False

    def held(self, how: How) -> Held:
        """Return what is held at the peak."""
        # values, gradient; where FedProx or learn.state = "keep" began
        vectors = (
            2 + self.fedprox + self.changes + (0 if how.file else self.moments) + self.moments * self.keeps
        )
        bodies, alive = max(self._phases(how), key=sum)
        return Held(
            weights=self.segment if how.pages else 0,
            trained=self.trained * vectors,
            bodies=bodies,
            alive=alive,
            process=self.resident + SLACK,
        )

    def _phases(self, how: How) -> Iterator[tuple[int, int]]:
        """Yield the bytes of messages and of what else a phase holds."""
        tokens = self.longest * (1 if self.text else how.rows)
        hidden, around = tokens * self.token, self.around(how.rows)
        groups = math.ceil(self.rows * self.longest / tokens)
        kept = self.cut * groups * hidden + groups * around if how.inputs and self.trains else 0
        run, answer = hidden + around, 0 if how.streaming else self.body
        yield (
            0,
            self.trained * max(2 + self.changes, self.moments if how.file else 0),
        )  # adapters as a message; a state
        yield self.body + answer, kept
        yield self.body, self.forward(how.rows) + run + kept
        if self.trains:
            yield answer, self.joint(how.rows) + run + hidden + (kept or self.cut * hidden + around)
        if finish := self.finish(how.rows, how.head):
            yield self.body + answer, finish + 2 * hidden + kept

    @property
    def least(self) -> How:
        """The way to run that takes the least."""
        return How(head=FEW if self.causal else 0, streaming=self.streams)
