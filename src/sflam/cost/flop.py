"""FLOP of one training step, of one sample: (1.1) to (1.7), with each family's own linear maps.

Two FLOP per multiply-add; norms, activations, softmax and the loss count nothing. A gradient is counted where it is
computed: down to the lowest adapted layer and no further, so the rules (1.3) and (1.5) follow from one walk through
a block. The attention is dense: masks, causal or of a window, save nothing unless a kernel exploits them.
"""

from __future__ import annotations

from dataclasses import dataclass

from sflam.cost.training import Step
from sflam.model.architecture import Linear
from sflam.model.tuned import tuned_among


@dataclass(frozen=True, kw_only=True)
class Flop:
    """FLOP of one sample.

    Attributes:
        embed: the embedding, forward.
        tuned: the blocks that carry adapters.
        forward: one such block, forward.
        bare_forward: one without adapters, forward.
        below: what the backward computes below the blocks.
        lowest: the lowest block that is trained, backward.
        above: any other block with adapters, backward.
        bare_above: one without adapters through which a gradient goes, backward.
        head_forward: what follows the blocks, forward.
        head_backward: the same, backward.
        head_lowest: the same where no gradient is wanted at its input.
    """

    embed: int
    tuned: range
    forward: int
    bare_forward: int
    below: int
    lowest: int
    above: int
    bare_above: int
    head_forward: int
    head_backward: int
    head_lowest: int

    def blocks_forward(self, first: int, last: int) -> int:
        """Return the forward of the blocks ``first`` to ``last`` - 1."""
        adapted = tuned_among(self.tuned, first, last)
        return adapted * self.forward + (last - first - adapted) * self.bare_forward

    def blocks_backward(self, first: int, last: int, *, frozen: int = 0) -> int:
        """Return the backward of the blocks ``first`` to ``last`` - 1, where the first ``frozen`` train nothing.

        Below the lowest block that is trained there is none.
        """
        lowest = max(frozen, self.tuned.start)
        if lowest >= self.tuned.stop:
            return 0
        start = max(first, lowest)
        adapted = tuned_among(self.tuned, start, last)
        found = adapted * self.above + (max(0, last - start) - adapted) * self.bare_above
        return found - (self.above - self.lowest) * (first <= lowest < last)


def flop_of(step: Step) -> Flop:
    """Return the FLOP of a step, part by part."""
    shape, training = step.shape, step.training
    embed = shape.embed_flops * (step.tokens - shape.extra_tokens)
    head = [
        2 * layer.inputs * layer.outputs * (step.tokens if layer.every_token else 1) for layer in shape.head
    ]
    learns = [training.full or (layer.fresh and training.trained_head) for layer in shape.head]
    flows = [any(learns[:index]) for index in range(len(learns))]
    return Flop(
        embed=embed,
        tuned=step.tuned,
        forward=block_forward(step),
        bare_forward=block_forward(step.bare),
        below=embed if training.full else 0,
        lowest=block_backward(step, flows=False),
        above=block_backward(step, flows=True),
        bare_above=block_backward(step.bare, flows=True),
        head_forward=sum(head),
        head_backward=sum(count * (1 + mine) for count, mine in zip(head, learns, strict=True)),
        head_lowest=sum(
            count * (mine + below) for count, mine, below in zip(head, learns, flows, strict=True)
        ),
    )


def block_forward(step: Step) -> int:
    """Return the FLOP of one block, forward: (1.1) and (1.2) for the family's own maps."""
    maps = 2 * step.tokens * sum(linear.weights for linear in step.shape.linears)
    low_rank = (
        2 * step.tokens * step.training.rank * sum(linear.inputs + linear.outputs for linear in step.adapted)
    )
    return maps + 4 * step.tokens**2 * step.shape.width + low_rank


def block_backward(step: Step, *, flows: bool) -> int:
    """Return the FLOP of one block, backward; where every weight is trained, two products a map.

    Otherwise a frozen map costs one product, its input's gradient; an attention product two; a LoRA factor two. With
    ``flows`` a gradient is wanted at the block's input (1.3); without it this is the lowest adapted block, and what
    would only serve its input is not computed (1.5). With ``frozen_a`` A is passed through, and gets no gradient.
    """
    shape, tokens = step.shape, step.tokens
    if step.training.full:
        return 4 * tokens * sum(linear.weights for linear in shape.linears) + 8 * tokens**2 * shape.width
    total, to_a = 0, not step.training.frozen_a

    def passed(linear: Linear, below: bool) -> bool:
        """Add one map's products; return whether a gradient is wanted at its output."""
        nonlocal total
        mine = linear in step.adapted
        total += 2 * tokens * linear.weights * below
        if mine:
            factors = linear.inputs * (to_a + below) + linear.outputs * (1 + (to_a or below))
            total += 2 * tokens * step.training.rank * factors
        return below or mine

    wanted = [passed(projection, flows) for projection in shape.projections]
    query, key, value = wanted if len(wanted) == 3 else wanted * 3
    scores = query or key
    total += 2 * tokens**2 * shape.width * (query + key + scores + value)
    after = passed(shape.output, scores or value)
    inside = any([passed(linear, flows or after) for linear in shape.mlp_in])
    passed(shape.mlp_out, inside)
    return total
