"""The memory of a device without torch, from a model's config.json: its whole process, where it runs with the least.

The formula is :mod:`sflam.lean_memory`'s, which the device fills in with the plan of its own graphs; here what they
work with comes from the widths of a block. Values per token, of d, d_ff and the width of the attention w:

    forward and backward of a block     (5 of images, 7 of texts) d + (1 + copies) d_ff, 2 d_ff more where it is gated,
                                        2 d more where its MLP is not adapted, 4 d + d_ff where adapters drop
                                        inputs; or 7 d + 4 w, with some heads' s x s scores
    forward alone                       3 d + d_ff (2 d_ff where it is gated or keeps copies), or 2 d + 2 w with scores
    embedding of patches, head          2 d; d, and as many as there are words where every token has logits

and beside them a slice of a frozen matrix and blocks of element-wise chains. Within 15 % of the process, measured
(tests/device/test_memory.py), and mostly within 10 % of the graphs' own plan. Bytes.
"""

from __future__ import annotations

from sflam.config import Job
from sflam.cost.training import LeanDevice, Step
from sflam.device.settings import LEAN
from sflam.lean_memory import MEGABYTE, Held, LeanStep
from sflam.model.tuned import tuned_among
from sflam.sizes import FLOAT_BITS, HEADER_BYTES, IDENTITY, is_variable, token_body_bytes, value_bits

RESIDENT = 43 * MEGABYTE
"""The process before it trains: Python, NumPy, TLS, our code, the graphs (x86-64, Linux, Python 3.11)."""
SLICE = MEGABYTE
"""Of a frozen matrix that is read at a time."""
CHAIN = 320 << 10
"""Blocks of element-wise chains."""
SCORES = 3
"""Buffers of scores of a few heads."""
HEADS = 256 << 10
"""Bytes of the scores of as many heads as run together; one head at least."""
ENCODERS = frozenset({"bert", "roberta", "distilbert"})
"""Families of texts without a causal mask."""
PIXEL = 6
"""Bytes of a pixel on its way to a graph: uint8 twice, float32."""


def lean_of(job: Job, scheme: str = "") -> LeanDevice | None:
    """Return what a job's devices without torch are, whose messages are of ``scheme``; None where it has torch's."""
    if job.device.runtime != LEAN:
        return None
    bits = max(bits for place in job.placements for bits in place.bits)
    practice = job.learn.practice
    return LeanDevice(
        bits=max(bits, job.plan.bits_most) if "bits" in job.plan.optimize else bits,
        scheme=scheme or job.quant.scheme,
        fedprox=practice.local == "fedprox",
        keeps=practice.state == "keep",
        changes=job.quant.adapters < FLOAT_BITS and scheme != IDENTITY,
    )


def lean_memory(step: Step, cut: int, device: LeanDevice) -> Held:
    """Return the least that a device takes that keeps ``cut`` blocks."""
    found = lean_step(step, cut, device)
    return found.held(found.least)


def lean_step(step: Step, cut: int, device: LeanDevice) -> LeanStep:
    """Return what a training step is made of."""
    shape, training, width = step.shape, step.training, _width(step)
    values = training.rank * sum(
        linear.inputs * (not training.frozen_a) + linear.outputs for linear in step.adapted
    )
    trained = tuned_among(step.tuned, 0, cut) * values * (not training.frozen_half)
    if training.labels_home and training.trained_head:
        trained += sum(layer.weights for layer in shape.head if layer.fresh)
    raw = device.scheme == IDENTITY
    bits = 8 * width if raw else device.bits
    return LeanStep(
        text=not shape.embed_flops,
        rows=training.batch,
        longest=step.tokens,
        cut=cut,
        token=shape.hidden * width,
        trains=cut > step.tuned.start and not training.frozen_half,
        trained=trained * width,
        moments=training.optimizer_slots - device.fedprox,
        fedprox=device.fedprox,
        keeps=device.keeps,
        segment=0,
        body=HEADER_BYTES + token_body_bytes(training.batch * step.sent, shape.hidden, bits, device.scheme),
        streams=not is_variable(device.scheme) and shape.hidden * value_bits(bits, device.scheme) % 8 == 0,
        resident=RESIDENT,
        causal=training.labels_home and any(layer.every_token for layer in shape.head),
        forward=lambda rows: _forward(step, cut, rows),
        joint=lambda rows: max(_forward(step, cut, rows), _joint(step, rows, values)),
        finish=lambda rows, together: _finish(step, rows, together),
        around=lambda rows: _mask(step),
        changes=device.changes,
    )


def _forward(step: Step, cut: int, rows: int) -> int:
    """Return the bytes that embedding and forward work with at their fullest, and of what they return."""
    shape, width, tokens = step.shape, _width(step), _tokens(step, rows)
    inner = shape.mlp_out.inputs
    patches = bool(shape.embed_flops)
    fullest = [2 * shape.hidden * tokens * width if patches else _mask(step) + shape.hidden * tokens * width]
    if cut:
        doubled = len(shape.mlp_in) > 1 or shape.activation_copies > 1
        fullest.append(tokens * width * (3 * shape.hidden + inner * (1 + doubled)))
        fullest.append(tokens * width * (2 * shape.hidden + 2 * shape.width) + _scores(step))
    return _fixed(step, cut, tokens) + max(fullest) + tokens * shape.hidden * width + _sample(step, rows)


def _joint(step: Step, rows: int, values: int) -> int:
    """Return the bytes that forward and backward of a block together work with, and of what they return."""
    shape, training, width, tokens = step.shape, step.training, _width(step), _tokens(step, rows)
    inner, patches, gated = shape.mlp_out.inputs, bool(shape.embed_flops), len(shape.mlp_in) > 1
    adapted = bool(set(shape.mlp_in) & set(step.adapted))
    drops = training.lora_dropout * (4 * shape.hidden + inner)
    mlp = (5 if patches else 7) * shape.hidden + 2 * shape.hidden * (not adapted)
    mlp += (1 + shape.activation_copies + 2 * gated) * inner
    low = training.rank * len(step.adapted)
    attention = tokens * width * (7 * shape.hidden + 4 * shape.width + drops + low) + _scores(step)
    fullest = max(tokens * width * (mlp + drops + low), attention)
    results = max(tokens * shape.hidden, values) * width
    return _fixed(step, 1, tokens) + fullest + results + _sample(step, rows)


def _finish(step: Step, rows: int, together: int) -> int:
    """Return the bytes that head and loss work with, for so many tokens at a time; 0 without a head."""
    shape, tokens = step.shape, _tokens(step, rows)
    if not step.training.labels_home:
        return 0
    words = sum(layer.outputs for layer in shape.head if layer.every_token)
    if words:
        tokens = min(together or tokens, tokens)
    return _fixed(step, 0, tokens) + tokens * _width(step) * (2 * shape.hidden + words)


def _tokens(step: Step, rows: int) -> int:
    return step.tokens * (rows if step.shape.embed_flops else 1)


def _fixed(step: Step, cut: int, tokens: int) -> int:
    """Return the bytes of a slice of a frozen matrix, and of blocks of element-wise chains."""
    shape, width, inner = step.shape, _width(step), step.shape.mlp_out.inputs
    words = max((layer.outputs for layer in shape.head), default=0) if step.training.labels_home else 0
    largest = max(shape.hidden * (inner if cut else words), shape.embed_flops // 2)
    return min(SLICE, largest * width) + min(CHAIN, tokens * max(shape.hidden, inner) * width)


def _scores(step: Step) -> int:
    """Return the bytes of the scores of the heads that run together."""
    scores = step.tokens**2 * _width(step)
    return SCORES * max(min(HEADS, step.shape.heads * scores), scores)


def _sample(step: Step, rows: int) -> int:
    """Return the bytes of the pixels or words of ``rows`` rows on their way to a graph."""
    shape = step.shape
    if not shape.embed_flops:
        return 16 * step.tokens
    values = shape.embed_flops // (2 * shape.hidden) * (step.tokens - shape.extra_tokens)
    return rows * values * (PIXEL + (8 if _width(step) == 8 else 0))


def _mask(step: Step) -> int:
    """Return the bytes of the causal mask that the embedding hands to every block."""
    causal = not step.shape.embed_flops and step.shape.family not in ENCODERS
    return step.tokens**2 * _width(step) if causal else 0


def _width(step: Step) -> int:
    return 8 if step.training.dtype == "float64" else 4
