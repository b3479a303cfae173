"""The peak of a device without torch, from plain numbers, for every way to run.

Peak = the process before it trains + frozen pages kept + trained vectors + messages + one group of rows at its fullest.
The one formula of the device itself, which counts its graphs (``device.footprint``) and chooses how to run, and of the
planner, the simulator and the start-up note, which know a model by its config.json alone (``cost.lean_device``) and say
the least. Bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

MEGABYTE = 1 << 20
"""What a megabyte of memory is here, as for the system's own tools."""
SLACK = 3 * MEGABYTE
"""What is not counted one by one: buffers of sockets and files, headers, small arrays, gaps of the allocator."""
BODIES = 2
"""Messages held where answers are decoded as they come, else one more. One more than is held at a time: measured at
ViT-B/16, 32 images, where a body is 5 MB and the peak 73 MB."""


@dataclass(frozen=True)
class How:
    """A way to run, which begins with the least memory.

    Attributes:
        rows: images of a group.
        file: whether the moments of the optimiser lie in a file.
        streaming: whether answers are decoded while they come.
        inputs: whether the inputs of the blocks stay from forward to backward.
        pages: whether frozen weights stay in memory.
    """

    rows: int = 1
    file: bool = True
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
        alive: of a group of rows: what the graphs work with, and what is kept for the backward.
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
        segment: bytes of the frozen weights.
        body: bytes of a message.
        streams: whether the scheme lets answers be decoded while they come.
        resident: bytes of the process before it trains.
        working: rows at a time -> bytes that the graphs work with at their fullest.
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
    working: Callable[[int], int]
    around: Callable[[int], int]

    def held(self, how: How) -> Held:
        """Return what is held at the peak."""
        tokens = self.longest * (1 if self.text else how.rows)
        hidden, around = tokens * self.token, self.around(how.rows)
        # beside the graphs' own: surroundings, and the gradient that came
        alive = self.working(how.rows) + around + hidden
        if self.trains:
            groups = math.ceil(self.rows * self.longest / tokens) if how.inputs else 1
            alive += self.cut * groups * (hidden + (around if how.inputs else 0))
        # values, gradient, the copy that is sent or saved; where FedProx or learn.state = "keep" began
        vectors = 3 + self.fedprox + (0 if how.file else self.moments) + self.moments * (1 + self.keeps)
        return Held(
            weights=self.segment if how.pages else 0,
            trained=self.trained * vectors,
            bodies=self.body * (BODIES if how.streaming else BODIES + 1),
            alive=alive,
            process=self.resident + SLACK,
        )

    @property
    def least(self) -> How:
        """The way to run that takes the least."""
        return How(streaming=self.streams)
