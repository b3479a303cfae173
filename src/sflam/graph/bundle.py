"""All graphs of a device half cut at one place, and what their inputs and outputs are bound to.

A text is run one row at a time, and n is its tokens; images in groups of n rows. The gradients of the groups of a
mini-batch add up to that of the whole, since the loss of a target is weighted by its ``share``, 1 / targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sflam.graph.graph import Graph

VERSION = 1

FROZEN, TRAINED, SAMPLE = "frozen", "trained", "sample"
HIDDEN, GRADIENT, SURROUNDING = "hidden", "gradient", "surrounding"
LABELS, SHARE, LOSS = "labels", "share", "loss"

ROLES: Mapping[str, str] = {
    FROZEN: "tensor of the segment file by its name, row-major; the graph's shape may merge its axes",
    TRAINED: "trained tensor by its name in `trained`; as an output, its gradient",
    SAMPLE: "input_ids [1,n] of a text row, or pixel_values [n,C,H,W]",
    HIDDEN: "activations, [1,n,d] of a text row or [n,T,d] of images",
    GRADIENT: "the loss's gradient with respect to the activations: of a block's output as an input, of its input as "
    "an output",
    SURROUNDING: "what the embedding hands to every block beside the activations (rotary tables, masks), by name",
    LABELS: "classes [1] of a text row, [n] of images, or [1,n] the token that follows each in a language model",
    SHARE: "weight of one target in the loss, []",
    LOSS: "sum over targets of share times loss, []",
}


@dataclass(frozen=True)
class Source:
    """Where an input comes from, or what an output is: a role, and a name where the role has several."""

    role: str
    name: str = ""


@dataclass(frozen=True)
class Binding:
    """Graph input -> where it comes from, and graph output -> what it is.

    The binding of a block serves its forward and its joint graph: a name means the same in both.
    """

    inputs: Mapping[str, Source]
    outputs: Mapping[str, Source]


@dataclass(frozen=True)
class BlockKind:
    """The graphs of blocks that differ in nothing but their tensors.

    Attributes:
        forward: activations -> activations.
        joint: forward again and backward: activations and gradient -> gradients of the trained tensors, and of the
            activations unless nothing before the block is trained; None where nothing below the cut is trained.
    """

    forward: Graph
    joint: Graph | None


@dataclass(frozen=True)
class Block:
    """One block: the kind it is of, and its binding."""

    kind: int
    binding: Binding


@dataclass(frozen=True)
class Piece:
    """A graph of its own with its binding: the embedding, or the head with its loss."""

    graph: Graph
    binding: Binding


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The graphs of one device half.

    Attributes:
        cut: blocks of the half.
        dim: hidden size d.
        text: whether n is the tokens of one text row, instead of a number of images.
        tokens: tokens of an image, or the most of a text; 0 for no limit.
        task: what the loss is.
        dtype: in which the graphs were compared with torch, ``float32`` or ``float64``.
        embed: sample -> activations and surroundings.
        kinds: the kinds of blocks.
        blocks: the blocks before the cut, in order.
        head: labels at home: activations, labels and share -> loss, gradient, gradients of its trained tensors.
        trained: name -> shape of the trained tensors, in the order of the flat vector of adapters [P].
    """

    cut: int
    dim: int
    text: bool
    tokens: int
    task: str
    dtype: str
    embed: Piece
    kinds: tuple[BlockKind, ...]
    blocks: tuple[Block, ...]
    head: Piece | None = None
    trained: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    version: int = VERSION

    @property
    def causal(self) -> bool:
        """Whether every token is the label of the one before it, so that the head may run for any of them apart."""
        return self.task == "causal-lm"
