"""One pass through the server: frames of many devices become rows, with the dropout of each.

R rows of a pass, T tokens, d hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from sflam.codec.torch_quantizers import laid_together
from sflam.learn.chunks import Chunk
from sflam.learn.examples import join_lengths, padded_tokens
from sflam.learn.frames import Frame
from sflam.learn.precision import reseeded
from sflam.model.lora import Rows
from sflam.model.row_masks import RowMasks
from sflam.model.split import Arrival, ServerSegment
from sflam.seeds import derive


@dataclass(frozen=True, eq=False)
class ChunkForward:
    """A forward of one chunk: frames sorted by cut, a leaf [R,T,d] for those of each cut, and what came of all rows.

    ``weight`` is what the mean loss of each frame counts, G s_k; ``share`` is the part that its rows are of those
    expected, which makes the mean one over these.
    """

    frames: tuple[Frame, ...]
    leaves: tuple[Tensor, ...]
    weight: tuple[float, ...]
    width: int
    out: Tensor
    share: tuple[float, ...]

    @property
    def times(self) -> tuple[float, ...]:
        """What the mean loss over the rows of each frame counts."""
        return tuple(weight * share for weight, share in zip(self.weight, self.share, strict=True))

    @property
    def counts(self) -> tuple[int, ...]:
        """Rows of each frame."""
        return tuple(len(frame.hidden) for frame in self.frames)


def arrivals_of(
    segment: ServerSegment, frames: Sequence[Frame], width: int, copy_of: Callable[[int], int]
) -> tuple[list[Arrival], list[Tensor], Tensor | None]:
    """Group frames by cut; return the arrivals, the leaf of each, and the lengths of all rows."""
    dtype = segment.stack.values.dtype
    leaves: list[Tensor] = []
    arrivals: list[Arrival] = []
    seen: list[Frame] = []
    for cut, group in groupby(frames, key=lambda frame: frame.cut):
        members = list(group)
        seen += members
        entering = [padded_tokens(frame.hidden.detach().to(dtype), width) for frame in members]
        leaf = laid_together(entering).requires_grad_(any(segment.answers(cut, f.device) for f in members))
        rows = Rows.of([copy_of(f.device) for f in seen], [len(f.hidden) for f in seen])
        leaves.append(leaf)
        arrivals.append(Arrival(cut, leaf, rows))
    own = [frame.lengths for frame in frames]
    if width > max(frame.hidden.shape[1] for frame in frames):
        own = [
            torch.full((len(f.hidden),), f.hidden.shape[1]) if f.lengths is None else f.lengths
            for f in frames
        ]
    lengths = join_lengths(
        own,
        [len(frame.hidden) for frame in frames],
        [frame.hidden.shape[1] for frame in frames],
        frames[0].hidden.device,
    )
    return arrivals, leaves, lengths


@contextmanager
def dropout(segment: ServerSegment, frames: Sequence[Frame], chunk: Chunk, seed: int) -> Iterator[None]:
    """Draw the masks of one of several passes row by row, so that they do not depend on the chunks."""
    at = [(frame.device, int(row)) for frame in frames for row in chunk[frame.device]]
    if segment.places:  # devices come one after another
        with reseeded(derive(seed, "row", *at[0])):
            yield
        return
    layout = segment.layout
    layout.masks = RowMasks([derive(seed, "row", *one) for one in at], lambda: sum(layout.rows.counts))
    try:
        with layout.masks:
            yield
    finally:
        layout.masks = None
