"""The rows of a step in chunks that go through the server one after another, so that no pass keeps more than a limit.

Gradients add up over the chunks, and every device's loss is a mean over its whole mini-batch: what is learnt does not
depend on the chunks. They are a rule of shapes, and so the same wherever a run is resumed or repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from sflam.cost.memory import rows_of_pass
from sflam.cost.passes import passes
from sflam.cost.training import Step
from sflam.learn.frames import Frame
from sflam.learn.grouping import Rows

Chunk = dict[int, Rows]
"""Device -> those of its rows that are in the chunk."""


class PassBudget:
    """How many rows go through the server in one pass.

    Args:
        step: of the model; it has ``learn.memory_gb``.
    """

    def __init__(self, step: Step) -> None:
        self.step = step
        self._rows = cache(lambda cut, tokens: rows_of_pass(replace(step, tokens=tokens), cut))

    def chunks(self, frames: Sequence[Frame]) -> list[Chunk]:
        """Return the chunks of a step, devices that enter at one cut beside each other."""
        ordered = sorted(frames, key=lambda frame: frame.cut)
        most = [self._rows(frame.cut, frame.hidden.shape[1]) for frame in ordered]
        found = passes([len(frame.hidden) for frame in ordered], most)
        return [{ordered[index].device: rows for index, rows in own.items()} for own in found]


def parts_of(frames: Sequence[Frame], chunk: Chunk) -> list[Frame]:
    """Return the frames of the rows of a chunk, in the order of ``frames``."""
    return [frame.rows(chunk[frame.device]) for frame in frames if frame.device in chunk]
