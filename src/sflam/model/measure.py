"""What a model costs at every cut, from its config.json alone: FLOP, traffic, adapter weights, memory of the device.

Two FLOP per multiply-add; norms, activations, softmax and the loss count nothing. A gradient is counted where it is
computed: down to the lowest adapted layer and no further, so the rules (1.3) and (1.5) follow from one walk through
a block. The attention is dense: masks, causal or of a window, save nothing unless a kernel exploits them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from sflam.errors import ModelError, unknown
from sflam.model.architecture import Architecture, Linear, read
from sflam.model.known import KNOWN
from sflam.sizes import MAX_BITS, MIN_BITS
from sflam.workload import Workload

BUNDLED = {"nano-vit": "nano_vit"}
TEXT_TOKENS = 128
"""Tokens of a text where nothing else is said."""
WEIGHT_BYTES = {"float32": 4, "float64": 8, "bfloat16": 2}


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a model is trained, as far as its cost goes.

    Attributes:
        batch: samples in a mini-batch, m_b.
        tokens: tokens of a sample; 0 takes the image's, or 128 for a text.
        rank: LoRA rank r.
        targets: last names (``q_proj``) or dotted ends of the adapted layers; empty adapts every linear layer of
            the blocks, as training does.
        classes: labels of a classification head.
        task: ``causal-lm`` or ``classification``; empty takes what the config names.
        trained_head: whether a classifier that no checkpoint holds is trained in full.
        dtype: precision of weights and activations; adapters stay float32.
        optimizer_slots: values the optimiser keeps per adapter weight, n_s (Adam 2).
        fused_attention: the attention kernel keeps no s x s weights; without it they count in the memory.
        full: whether every weight is trained, and nothing is adapted.
        frozen_a: whether of the adapters B alone is trained and sent.
        labels_home: whether head and loss are on the device, and a step is two exchanges.
    """

    batch: int = 16
    tokens: int = 0
    rank: int = 8
    targets: tuple[str, ...] = ()
    classes: int = 10
    task: str = ""
    trained_head: bool = True
    dtype: str = "float32"
    optimizer_slots: int = 2
    fused_attention: bool = False
    full: bool = False
    frozen_a: bool = False
    labels_home: bool = False


def measure(
    model: str,
    training: Training | None = None,
    *,
    scheme: str = "uniform",
    bit_choices: Iterable[int] = range(MIN_BITS, MAX_BITS + 1),
) -> Workload:
    """Return the workload of a model by name.

    Args:
        model: ``nano-vit``, a local folder with a config.json, or a name in ``known.KNOWN``.
        training: how it is trained.
        scheme: the quantizer's name.
        bit_choices: the bit widths a plan may choose from.

    Raises:
        ModelError: no such model, an unsupported family, targets that name no layer, or too many tokens.
    """
    training = training or Training()
    config = read_config(model)
    shape = read(config, classes=training.classes, task=training.task, where=f"model {model!r}")
    return workload_of(shape, training, name=model, scheme=scheme, bit_choices=tuple(bit_choices))


def read_config(model: str) -> dict[str, Any]:
    """Return the parsed config.json of a bundled, local or well-known model; raises ModelError."""
    if model in KNOWN:
        return KNOWN[model]
    folder = Path(model).expanduser()
    if model in BUNDLED:
        folder = Path(str(resources.files("sflam.model") / BUNDLED[model]))
    elif not folder.is_dir():
        names = unknown("model", model, [*BUNDLED, *KNOWN])
        raise ModelError(f"{names}; or give a local folder with a config.json")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder / 'config.json'} cannot be read ({error}); give a model's folder"
        ) from error
    if not isinstance(config, dict):
        raise ModelError(f"{folder / 'config.json'} is no JSON object; give a model's folder")
    return config


def workload_of(
    shape: Architecture, training: Training, *, name: str, scheme: str, bit_choices: tuple[int, ...]
) -> Workload:
    """Return the workload of an architecture; formulas (1.1) to (1.10), with each family's own maps.

    Raises:
        ModelError: targets that name no layer of the blocks, or more tokens than the model has positions.
    """
    tokens = _tokens(shape, training, name)
    if training.full:
        training = replace(training, rank=0, targets=())
    adapted = adapted_layers(shape, training.targets, name)
    blocks, batch = shape.blocks, training.batch
    forward = block_forward(shape, tokens, training.rank, adapted)
    lowest, above = (
        block_backward(shape, tokens, training.rank, adapted, flows=flows, frozen_a=training.frozen_a)
        for flows in (False, True)
    )
    embed = shape.embed_flops * (tokens - shape.extra_tokens)
    head_forward, head_backward = head_flops(shape, tokens, trained=training.trained_head)
    below = 0  # what the backward computes below the blocks
    if training.full:
        lowest = above = full_backward(shape, tokens)
        below, head_backward = embed, 2 * head_forward
    values = training.rank * sum(one.inputs * (not training.frozen_a) + one.outputs for one in adapted)
    home, head_values, head_memory = training.labels_home, 0, 0
    if home:
        head_values = sum(one.weights for one in shape.head if one.fresh and training.trained_head)
        head_memory = _head_memory(shape, training, tokens, head_values)
    return Workload(
        name=name,
        blocks=blocks,
        batch=batch,
        tokens=tokens,
        hidden=shape.hidden,
        device_forward=tuple(
            float(batch * (embed + cut * forward + home * head_forward)) for cut in range(blocks + 1)
        ),
        device_backward=tuple(
            float(batch * (below + (lowest + (cut - 1) * above if cut else 0) + home * head_backward))
            for cut in range(blocks + 1)
        ),
        server_forward=tuple(
            float(batch * ((blocks - cut) * forward + (not home) * head_forward)) for cut in range(blocks + 1)
        ),
        server_backward=tuple(
            float(
                batch * ((blocks - cut) * above - (above - lowest) * (cut == 0) + (not home) * head_backward)
            )
            for cut in range(blocks + 1)
        ),
        adapter_values=tuple(cut * values + head_values for cut in range(blocks + 1)),
        device_memory=tuple(
            float(device_memory(shape, training, tokens, adapted, cut)) + head_memory
            for cut in range(blocks + 1)
        ),
        exchanges=1 + home,
        bit_choices=bit_choices,
        scheme=scheme,
    )


def adapted_layers(shape: Architecture, targets: tuple[str, ...], name: str) -> tuple[Linear, ...]:
    """Return the layers of a block that get LoRA: those named, or every linear one."""
    known = {end for one in shape.linears for end in (one.name, one.name.rpartition(".")[2])}
    chosen = [one for one in shape.linears if not targets or any(_ends(one, target) for target in targets)]
    for target in targets:
        if not any(_ends(one, target) for one in chosen):
            raise ModelError(f"model {name!r}: {unknown('model.targets entry', target, known)}")
    return tuple(chosen)


def _ends(one: Linear, target: str) -> bool:
    return one.name == target or one.name.endswith(f".{target}")


def block_forward(shape: Architecture, tokens: int, rank: int, adapted: tuple[Linear, ...]) -> int:
    """Return the FLOP of one block, forward, one sample: (1.1) and (1.2) for the family's own maps."""
    maps = 2 * tokens * sum(one.weights for one in shape.linears)
    low_rank = 2 * tokens * rank * sum(one.inputs + one.outputs for one in adapted)
    return maps + 4 * tokens**2 * shape.width + low_rank


def block_backward(
    shape: Architecture,
    tokens: int,
    rank: int,
    adapted: tuple[Linear, ...],
    *,
    flows: bool,
    frozen_a: bool = False,
) -> int:
    """Return the FLOP of one block, backward, one sample, base weights frozen.

    A frozen map costs one product, its input's gradient; an attention product two; a LoRA factor two. With
    ``flows`` a gradient is wanted at the block's input (1.3); without it this is the lowest adapted block, and what
    would only serve its input is not computed (1.5). With ``frozen_a`` A is passed through, and gets no gradient.
    """
    total = 0

    def passed(one: Linear, below: bool) -> bool:
        """Add one map's products; return whether a gradient is wanted at its output."""
        nonlocal total
        mine = one in adapted
        total += 2 * tokens * one.weights * below
        if mine:
            to_a = not frozen_a
            total += 2 * tokens * rank * (one.inputs * (to_a + below) + one.outputs * (1 + (to_a or below)))
        return below or mine

    wanted = [passed(one, flows) for one in shape.projections]
    query, key, value = wanted if len(wanted) == 3 else wanted * 3
    scores = query or key
    total += 2 * tokens**2 * shape.width * (query + key + scores + value)
    after = passed(shape.output, scores or value)
    inside = any([passed(one, flows or after) for one in shape.mlp_in])
    passed(shape.mlp_out, inside)
    return total


def full_backward(shape: Architecture, tokens: int) -> int:
    """Return the FLOP of one block, backward, one sample, where every weight is trained: two products a map."""
    return 4 * tokens * sum(one.weights for one in shape.linears) + 8 * tokens**2 * shape.width


def head_flops(shape: Architecture, tokens: int, *, trained: bool) -> tuple[int, int]:
    """Return the FLOP of what follows the blocks, forward and backward, one sample (1.7)."""
    forward = [2 * one.inputs * one.outputs * (tokens if one.every_token else 1) for one in shape.head]
    backward = [
        count * (2 if one.fresh and trained else 1) for one, count in zip(shape.head, forward, strict=True)
    ]
    return sum(forward), sum(backward)


def device_memory(
    shape: Architecture, training: Training, tokens: int, adapted: tuple[Linear, ...], cut: int
) -> int:
    """Return the bytes of a training step of the device's half at its peak (1.10).

    Frozen weights, adapters with gradient and optimiser state, what every block keeps for its backward, and the
    activations and gradient at the cut. Kept per token and block: the inputs of both norms; queries, keys and values;
    the attention weights unless fused; the activation's input; the input and the low-rank product of adapted maps.
    """
    wide = WEIGHT_BYTES[training.dtype]
    weights = wide * (shape.embed_weights + cut * shape.block_weights)
    down = training.rank * sum(one.inputs for one in adapted)
    up = training.rank * sum(one.outputs for one in adapted)
    trained = up + down * (not training.frozen_a)
    adapters = 4 * cut * ((2 + training.optimizer_slots) * trained + down + up - trained)
    if training.full:
        adapters = 4 * (1 + training.optimizer_slots) * (shape.embed_weights + cut * shape.block_weights)
    inner = shape.mlp_out.inputs
    gated = len(shape.mlp_in) > 1
    kept = 2 * shape.hidden + 3 * shape.width
    kept += shape.width + shape.heads if training.fused_attention else shape.heads * tokens
    kept += inner * (shape.activation_copies + 2 * gated)
    kept += training.rank * len(adapted)
    inputs = {
        "projections": shape.projections,
        "output": (shape.output,),
        "in": shape.mlp_in,
        "out": (shape.mlp_out,),
    }
    for maps in inputs.values():
        # Maps that share their input keep it once; the fused attention keeps its output already.
        if set(maps) & set(adapted) and not (training.fused_attention and maps == (shape.output,)):
            kept += maps[0].inputs
    activations = wide * training.batch * tokens * (cut * kept + 2 * shape.hidden)
    return weights + adapters + activations


def _head_memory(shape: Architecture, training: Training, tokens: int, trained: int) -> int:
    """Return the bytes a device needs for the head: weights, what is trained of it, its input and output."""
    wide, rows = WEIGHT_BYTES[training.dtype], training.batch * tokens
    held = [one for one in shape.head if not (one.tied or (one.fresh and training.trained_head))]
    weights = wide * sum(one.weights for one in held)
    momenta = 4 * (2 + training.optimizer_slots) * trained
    logits = sum(rows * one.outputs for one in shape.head if one.every_token)
    return weights + momenta + wide * 3 * rows * shape.hidden + 3 * 4 * logits


def _tokens(shape: Architecture, training: Training, name: str) -> int:
    limit = shape.most_tokens or training.tokens or TEXT_TOKENS
    tokens = training.tokens or shape.tokens or min(TEXT_TOKENS, limit)
    if tokens > limit and not shape.tokens:
        raise ModelError(f"model {name!r} has {limit} positions, asked for {tokens} tokens; ask for fewer")
    if tokens <= shape.extra_tokens:
        raise ModelError(
            f"model {name!r}: {tokens} tokens leave no patch beside {shape.extra_tokens} extra ones"
        )
    return tokens


def total_weights(shape: Architecture) -> int:
    """Return the weights of embedding and blocks, without the last norm and the head."""
    return sum(itertools.repeat(shape.block_weights, shape.blocks), shape.embed_weights)
