"""The families of models sflam can cut, one row each.

A row says where the parts of a Hugging Face model live and what happens before and after its blocks. The
composition ``finish(blocks(embed(inputs)))`` must equal the unmodified class's own forward; ``sflam verify``
checks that for any model.

Shapes: B rows (samples), T tokens, d hidden size, C classes, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sflam.errors import ModelError, unknown

IMAGE = "image-classification"
SEQUENCE = "sequence-classification"
CAUSAL = "causal-lm"

Embed = Callable[[Any, Mapping[str, Tensor]], Tensor]
Finish = Callable[[Any, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Task:
    """One head of a family.

    Attributes:
        architecture: the Hugging Face class this task is, whose forward is the reference.
        head: names of the head's modules inside the whole model.
        finish: ``(parts, hidden [B,T,d], lengths [B] | None) -> logits`` ([B,C], or [B,T,V] for a language model).
    """

    architecture: str
    head: tuple[str, ...]
    finish: Finish


@dataclass(frozen=True)
class Family:
    """Where the parts of one family of models live.

    Attributes:
        base: name of the backbone inside the whole model.
        front: names, inside the backbone, of what runs before the blocks.
        blocks: path, inside the backbone, of the ModuleList of blocks.
        back: names, inside the backbone, of what runs after the blocks.
        embed: ``(front, inputs) -> hidden [B,T,d]``.
        causal: whether a token sees only its past.
        tasks: what the family can be fine-tuned for.
    """

    name: str
    base: str
    front: tuple[str, ...]
    blocks: str
    back: tuple[str, ...]
    embed: Embed
    causal: bool
    tasks: Mapping[str, Task]


def _embed_image(front: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    dtype = next(front.embeddings.parameters()).dtype
    hidden: Tensor = front.embeddings(inputs["pixel_values"].to(dtype))
    return hidden


def _embed_bert(front: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    hidden: Tensor = front.embeddings(input_ids=inputs["input_ids"])
    return hidden


def _embed_gpt2(front: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    ids = inputs["input_ids"]
    positions = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
    hidden: Tensor = front.drop(front.wte(ids) + front.wpe(positions))
    return hidden


def _last_valid(hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the last valid token of every row, [B,d]."""
    if lengths is None:
        return hidden[:, -1]
    return hidden[torch.arange(len(hidden), device=hidden.device), lengths.to(hidden.device).long() - 1]


def _finish_vit(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    logits: Tensor = parts.classifier(parts.layernorm(hidden)[:, 0])
    return logits


def _finish_bert(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    logits: Tensor = parts.classifier(parts.dropout(parts.pooler(hidden)))
    return logits


def _finish_gpt2_sequence(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    logits: Tensor = parts.score(_last_valid(parts.ln_f(hidden), lengths))
    return logits


def _finish_gpt2_lm(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    logits: Tensor = parts.lm_head(parts.ln_f(hidden))
    return logits


FAMILIES: dict[str, Family] = {
    "vit": Family(
        name="vit",
        base="vit",
        front=("embeddings",),
        blocks="layers",
        back=("layernorm",),
        embed=_embed_image,
        causal=False,
        tasks={IMAGE: Task("ViTForImageClassification", ("classifier",), _finish_vit)},
    ),
    "bert": Family(
        name="bert",
        base="bert",
        front=("embeddings",),
        blocks="encoder.layer",
        back=("pooler",),
        embed=_embed_bert,
        causal=False,
        tasks={SEQUENCE: Task("BertForSequenceClassification", ("dropout", "classifier"), _finish_bert)},
    ),
    "gpt2": Family(
        name="gpt2",
        base="transformer",
        front=("wte", "wpe", "drop"),
        blocks="h",
        back=("ln_f",),
        embed=_embed_gpt2,
        causal=True,
        tasks={
            SEQUENCE: Task("GPT2ForSequenceClassification", ("score",), _finish_gpt2_sequence),
            CAUSAL: Task("GPT2LMHeadModel", ("lm_head",), _finish_gpt2_lm),
        },
    ),
}
"""Keyed by the ``model_type`` of a model's config.json."""


def family_of(model_type: str) -> Family:
    """Return the family of a ``model_type``; raises ModelError naming the known ones."""
    if model_type not in FAMILIES:
        raise ModelError(unknown("model family", model_type, FAMILIES))
    return FAMILIES[model_type]


def blocks_of(model: nn.Module, family: Family) -> nn.ModuleList:
    """Return the blocks of a whole model, in order."""
    blocks = model.get_submodule(f"{family.base}.{family.blocks}")
    assert isinstance(blocks, nn.ModuleList)
    return blocks
