"""The memory of a training step, from plain numbers: (1.10), the one formula of planner, note, comparison and report.

A peak has three parts: frozen weights; trained numbers with their gradient and optimiser state; activations. Those
are what autograd keeps of every block, and what the widest backward works with while all of it is kept:

    kept per token and block      the inputs of both norms; queries, keys, values; the attention's result (fused: and
                                  a logarithm per head; else its s x s weights, three times with dropout); the
                                  activation's input; the inputs of adapted maps (maps that share theirs keep it once),
                                  their low-rank products; a mask per dropout
    worked with, per token        5 d + 2 d_ff: the input, what leaves, its gradient, and two gradients of the hidden
                                  layer; a frozen embedding without blocks keeps nothing and works with 3 d
                                  (patches), 4 d (words) or 5 d (words and dropout)
    a frozen half, per token      nothing is kept; one block works with 3 d + 3 d_ff where its MLP is adapted (the map's
                                  result, the update and their sum; of a gate, d_ff more), 3 d + 2 d_ff where it is not,
                                  or with 2 d + 4 heads x d_head and the attention's s x s weights, and its pixels

The peak of a real process is within 15 % of it, and mostly within 5 % (tests/cost/test_memory_measured.py). The
library's own memory (about 0.5 GB of code) is not counted. Bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sflam.cost.lean_device import lean_memory
from sflam.cost.passes import passes
from sflam.cost.training import Step
from sflam.model.tuned import tuned_among
from sflam.network.network import Network
from sflam.units import human_bytes
from sflam.workload import Workload

WEIGHT_BYTES = {"float32": 4, "float64": 8, "bfloat16": 2}
ADAPTER_BYTES = 4
"""Least bytes of a trained number: adapters stay float32 where the model is kept in less."""


PASS_GB = 0.6
"""Activations of one pass of a server where ``learn.memory_gb`` is 0: beyond it rows gain nothing by going together."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one machine at its peak.

    Attributes:
        weights: frozen weights.
        trained: what is trained, with gradients and optimiser state.
        activations: what a step keeps for its backward and works with.
        kept: activations of samples that are kept from step to step (``learn.cache``, ``quant.delta``), and what
            devices have of their own (``learn.personal``) beside what a step trains.
        process: the process itself, where the whole of it is counted: of a device without torch.
    """

    weights: int = 0
    trained: int = 0
    activations: int = 0
    kept: int = 0
    process: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.trained + self.activations + self.kept + self.process

    def __str__(self) -> str:
        parts = (self.weights, self.trained, self.activations)
        weights, trained, kept = map(human_bytes, parts)
        samples = f", kept from step to step {human_bytes(self.kept)}" if self.kept else ""
        samples += f", the process itself {human_bytes(self.process)}" if self.process else ""
        return (
            f"{human_bytes(self.total)} (weights {weights}, training {trained}, activations {kept}{samples})"
        )


@dataclass(frozen=True)
class FleetMemory:
    """What the machines of a run need.

    Attributes:
        device: that of the device that needs most; None where there are none.
        server: that of the server that needs most.
        process: that of all of them simulated in this process.
    """

    device: Memory | None
    server: Memory
    process: Memory


def device_memory(step: Step, cut: int) -> Memory:
    """Return what a device needs that keeps ``cut`` blocks."""
    if step.training.lean is not None:
        held = lean_memory(step, cut, step.training.lean)
        return Memory(held.weights, held.trained, held.alive + held.bodies, process=held.process)
    return _held(step, cut, head=step.training.labels_home)


def whole_memory(step: Step) -> Memory:
    """Return what a device needs that trains the whole model, head and loss included."""
    return _held(step, step.shape.blocks, head=True)


def server_activations(step: Step, cuts: Sequence[int], *, grouping: str = "batched", groups: int = 0) -> int:
    """Return the bytes of activations on a server for devices with these cuts.

    Args:
        step: of the model; its batch is the rows of a device, or what they are on average.
        cuts: of the devices.
        grouping: which rows share an optimiser step: those of all devices, ``batched``; of one after another,
            ``sequential``; or some of every device, ``mixed``: the graph of those, beside what came in the step and the
            gradients that will be sent back, decoded. More rows than a pass takes go through one pass after another
            (``learn.memory_gb``), and then all that came in the step is there too.
        groups: of a mixed step; 0 for one row of every device in each.
    """
    rows = -(-step.training.batch // groups) if groups else 1
    at_once = with_batch(step, rows) if grouping == "mixed" else step
    frames = 2 * step.training.batch * step.tokens * step.shape.hidden * _wide(step) * len(cuts)
    most = [rows_of_pass(step, cut) for cut in cuts]
    if grouping == "sequential":
        return max(
            (_in_passes(at_once, [cut], [limit])[0] for cut, limit in zip(cuts, most, strict=True)), default=0
        )
    peak, several = _in_passes(at_once, cuts, most)
    return peak + (frames if several or grouping == "mixed" else 0)


def rows_of_pass(step: Step, cut: int) -> int:
    """Return how many rows that enter at ``cut`` go through a server in one pass: a rule of shapes."""
    limit = int(1e9 * (step.training.memory_gb or PASS_GB))
    return max(1, limit // max(1, _above(with_batch(step, 1), cut)))


def memory_of_rows(step: Step, cut: int, rows: int) -> float:
    """Return ``learn.memory_gb`` that gives passes of ``rows`` rows by :func:`rows_of_pass`: short, and no less."""
    least = rows * _above(with_batch(step, 1), cut)
    for digits in range(2, 17):
        found = float(f"{least / 1e9:.{digits}g}")
        if (
            found > 0
            and rows_of_pass(replace(step, training=replace(step.training, memory_gb=found)), cut) == rows
        ):
            return found
    return (least + 1) / 1e9


def _above(step: Step, cut: int) -> int:
    """Return the activations of a mini-batch that enters a server at ``cut``."""
    return activations(step, range(cut, step.shape.blocks), head=not step.training.labels_home)


def _in_passes(step: Step, cuts: Sequence[int], most: Sequence[int]) -> tuple[int, bool]:
    """Return the activations of the largest pass of a step over equal mini-batches, and whether there are others."""
    found = passes([step.training.batch] * len(cuts), most)
    each = [sum(_above(with_batch(step, len(rows)), cuts[i]) for i, rows in own.items()) for own in found]
    return max(each, default=0), len(found) > 1


def with_batch(step: Step, rows: int) -> Step:
    """Return the step with a mini-batch of so many rows."""
    return replace(step, training=replace(step.training, batch=rows))


def training_bytes(step: Step, numbers: int) -> int:
    """Return the bytes of trained numbers, their gradients, and the optimiser's own."""
    return numbers * (2 + step.training.optimizer_slots) * max(ADAPTER_BYTES, _wide(step))


def samples_bytes(step: Step, numbers: int) -> int:
    """Return the bytes of the gradient of each sample of a mini-batch, where devices hold it."""
    return numbers * step.training.batch * max(ADAPTER_BYTES, _wide(step)) * step.training.samples_apart


def clipping_peak(step: Step, numbers: int, kept: int) -> int:
    """Return the peak of a step of a device that has activations of ``kept`` bytes.

    Where samples are clipped, what they add is scaled, and summed in float64, when activations are gone.
    """
    summed = numbers * step.training.batch * (2 * max(ADAPTER_BYTES, _wide(step)) + 8)
    return max(kept, summed * step.training.samples_apart)


def activations(step: Step, blocks: range, *, head: bool, frozen: bool = False) -> int:
    """Return the peak of the activations of a half: what is kept for the backward, and what it works with.

    Args:
        step: of the model.
        blocks: those of the half; it begins above the embedding unless it has the first.
        head: whether head and loss are part of it.
        frozen: whether nothing in its blocks is trained.
    """
    shape, rows = step.shape, step.training.batch * step.tokens
    above = blocks.start > 0
    bare = not tuned_among(step.tuned, blocks.start, blocks.stop)
    frozen = frozen or (not above and blocks.stop <= step.tuned.start)
    if blocks and frozen:
        working = _forward_per_token(step.bare if bare else step)
    elif blocks or above or step.training.full:
        working = 5 * shape.hidden + 2 * shape.mlp_out.inputs * bool(blocks)
    else:  # forward only: patches are one map, words a sum of several tables
        working = (3 if shape.embed_flops else 4 + (shape.dropouts > 0)) * shape.hidden
    peak = rows * working * _wide(step)
    if head:  # logits, their logarithms and their gradient are float32; the head's input, output and gradient
        logits = sum(
            layer.outputs * (rows if layer.every_token else step.training.batch) for layer in shape.head
        )
        peak = max(peak, 3 * _wide(step) * rows * shape.hidden + 3 * 4 * logits)
    return kept(step, blocks.start, 0 if frozen else blocks.stop) + peak


def kept(step: Step, first: int, last: int) -> int:
    """Return the bytes that a mini-batch keeps in blocks ``first`` to ``last`` - 1 for their backward.

    Blocks below the lowest that is trained have none.
    """
    rows, wide = step.training.batch * step.tokens, _wide(step)
    first = max(first, step.tuned.start)
    blocks = max(0, last - first)
    adapted = tuned_among(step.tuned, first, last)
    each, plain = (wide * rows * _kept_per_token(one) for one in (step, step.bare))
    if step.training.checkpointing and blocks:  # every block's input, and one block's inside
        return blocks * wide * rows * step.shape.hidden + (each if adapted else plain)
    return adapted * each + (blocks - adapted) * plain


def _kept_per_token(step: Step) -> int:
    """Return the values one block keeps of a token; see the head of this file."""
    shape, training = step.shape, step.training
    gated = len(shape.mlp_in) > 1
    fused = training.fused_attention and not shape.attention_dropout
    values = 2 * shape.hidden + 3 * shape.width + shape.inner_norms + shape.dropouts * shape.hidden
    values += (
        shape.width + shape.heads if fused else shape.heads * step.tokens * (1 + 2 * shape.attention_dropout)
    )
    values += shape.mlp_out.inputs * (shape.activation_copies + 2 * gated)
    values += training.rank * len(step.adapted)
    if training.frozen_a:
        return values
    if (
        _wide(step) < ADAPTER_BYTES or training.lora_dropout
    ):  # every adapter has an input of its own, cast or masked
        return values + sum(linear.inputs for linear in step.adapted) * (1 + training.lora_dropout)
    for maps in (shape.projections, (shape.output,), shape.mlp_in, (shape.mlp_out,)):
        if set(maps) & set(step.adapted) and not (
            fused and maps == (shape.output,)
        ):  # which fused keeps already
            values += maps[0].inputs
    return values


def _forward_per_token(step: Step) -> int:
    """Return the values one block works with of a token where nothing is kept; see the head of this file."""
    shape, training = step.shape, step.training
    results = (3 + (_wide(step) < ADAPTER_BYTES)) if set(shape.mlp_in) & set(step.adapted) else 2
    inside = max(results, shape.activation_copies) + (len(shape.mlp_in) > 1)
    mlp = 3 * shape.hidden + inside * shape.mlp_out.inputs
    fused = training.fused_attention and not shape.attention_dropout
    attention = 2 * shape.hidden + 4 * shape.width + (0 if fused else 3 * shape.heads * step.tokens)
    pixels = shape.embed_flops // (2 * shape.hidden) * (ADAPTER_BYTES // min(ADAPTER_BYTES, _wide(step)))
    return max(mlp, attention) + pixels


def _held(step: Step, blocks: int, *, head: bool) -> Memory:
    """Return what a device needs for embedding, some blocks and, if so, what follows them."""
    shape, training = step.shape, step.training
    numbers = shape.embed_weights + blocks * shape.block_weights
    fresh = sum(layer.weights for layer in shape.head if layer.fresh and training.trained_head) * head
    after = (shape.tail_weights + sum(layer.weights for layer in shape.head if not layer.tied)) * head
    peak = activations(step, range(blocks), head=head, frozen=training.frozen_half)
    if training.full:
        return Memory(0, training_bytes(step, numbers + after), peak)
    down, up = (
        tuned_among(step.tuned, 0, blocks) * training.rank * sum(sizes)
        for sizes in ([linear.inputs for linear in step.adapted], [linear.outputs for linear in step.adapted])
    )
    frozen = _wide(step) * (numbers + after - fresh)
    adapter = max(ADAPTER_BYTES, _wide(step))
    if training.frozen_half:
        trained = training_bytes(step, fresh) + samples_bytes(step, fresh)
        return Memory(frozen + (down + up) * adapter, trained, clipping_peak(step, fresh, peak))
    frozen += down * training.frozen_a * adapter
    moving = up + down * (not training.frozen_a) + fresh
    trained = training_bytes(step, moving) + samples_bytes(step, moving)
    return Memory(frozen, trained, clipping_peak(step, moving, peak))


def _wide(step: Step) -> int:
    return WEIGHT_BYTES[step.training.dtype]


def fits(network: Network, workload: Workload) -> NDArray[np.bool_]:
    """Return which cuts fit which device; [K, Y + 1]."""
    room: NDArray[np.bool_] = np.asarray(workload.device_memory) <= network.memory[:, None]
    return room
