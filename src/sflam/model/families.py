"""The families of models sflam can cut, one row each.

A row names the parts of a Hugging Face model and what runs before and after its blocks. The
composition ``finish(blocks(embed(inputs)))`` must equal the unmodified class's own forward; ``sflam verify``
checks that for any model.

Shapes: B rows (samples), T tokens, d hidden size, C classes, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor, nn

from sflam.model import heads
from sflam.model.architecture import LIKE, READERS, alike
from sflam.model.block_inputs import Surroundings, bidirectional, causal, rotary, with_resolution
from sflam.registry import add

IMAGE = "image-classification"
SEQUENCE = "sequence-classification"
CAUSAL = "causal-lm"

Embed = Callable[[Any, Mapping[str, Tensor]], Tensor]
Finish = Callable[[Any, Tensor, Tensor | None], Tensor]


class Gates(Protocol):
    """Returns what stands in for each block of a model, block -> gate.

    Attributes:
        width: entries of the tuple a block returns; 0 when it returns a tensor.
    """

    @property
    def width(self) -> int: ...

    def __call__(self, blocks: nn.ModuleList, /) -> Mapping[nn.Module, nn.Module]: ...


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
        tasks: what the family can be fine-tuned for.
        both: names, inside the backbone, of frozen parts both sides need to build the blocks' surroundings.
        surroundings: what a block is given beside its input, rebuilt from lengths on either side.
        causal: whether a token sees only its past.
        gates: set where the model was cut by its structure (:mod:`sflam.model.structure`), not by this table:
            returns what stands in for each block in a copy of the whole model, block -> gate.
    """

    name: str
    base: str
    front: tuple[str, ...]
    blocks: str
    back: tuple[str, ...]
    embed: Embed
    tasks: Mapping[str, Task]
    both: tuple[str, ...] = ()
    surroundings: Surroundings = bidirectional
    causal: bool = False
    gates: Gates | None = None

    @property
    def path(self) -> str:
        """Full name of the ModuleList of blocks."""
        return self.full(self.blocks)

    def full(self, part: str) -> str:
        """Return the full name of a part of the backbone."""
        return f"{self.base}.{part}" if self.base else part


def _image_tower(name: str, architecture: str, **changes: Any) -> Family:
    """Return the row of a ViT-like model whose class token is classified."""
    task = Task(f"{architecture}ForImageClassification", ("classifier",), heads.class_token)
    rows = Family(
        name=name,
        base=name,
        front=("embeddings",),
        blocks="layers",
        back=("layernorm",),
        embed=heads.embed_image,
        tasks={IMAGE: task},
    )
    return replace(rows, **changes)


def _encoder(name: str, architecture: str, head: tuple[str, ...], finish: Finish, **changes: Any) -> Family:
    """Return the row of a BERT-like encoder."""
    rows = Family(
        name=name,
        base=name,
        front=("embeddings",),
        blocks="encoder.layer",
        back=(),
        embed=heads.embed_tokens_and_positions,
        tasks={SEQUENCE: Task(f"{architecture}ForSequenceClassification", head, finish)},
    )
    return replace(rows, **changes)


def _decoder(name: str, architecture: str) -> Family:
    """Return the row of a Llama-like decoder: rotary positions, grouped queries, sliding windows where configured."""
    return Family(
        name=name,
        base="model",
        front=("embed_tokens",),
        blocks="layers",
        back=("norm",),
        both=("rotary_emb",),
        embed=heads.embed_tokens,
        surroundings=rotary,
        causal=True,
        tasks={
            CAUSAL: Task(f"{architecture}ForCausalLM", ("lm_head",), heads.every_token),
            SEQUENCE: Task(f"{architecture}ForSequenceClassification", ("score",), heads.last_token),
        },
    )


FAMILIES: dict[str, Family] = {
    "vit": _image_tower("vit", "ViT"),
    "deit": _image_tower("deit", "DeiT"),
    "beit": _image_tower(
        "beit",
        "Beit",
        back=("layernorm", "pooler"),
        both=("shared_position_bias",),
        surroundings=with_resolution,
        tasks={IMAGE: Task("BeitForImageClassification", ("classifier",), heads.pooled_patches)},
    ),
    "dinov2": _image_tower(
        "dinov2",
        "Dinov2",
        blocks="encoder.layer",
        tasks={IMAGE: Task("Dinov2ForImageClassification", ("classifier",), heads.class_token_and_mean)},
    ),
    "bert": _encoder("bert", "Bert", ("dropout", "classifier"), heads.pooled_token, back=("pooler",)),
    "roberta": _encoder("roberta", "Roberta", ("classifier",), heads.own_head),
    "distilbert": _encoder(
        "distilbert",
        "DistilBert",
        ("pre_classifier", "dropout", "classifier"),
        heads.first_token_through_relu,
        blocks="transformer.layer",
    ),
    "gpt2": Family(
        name="gpt2",
        base="transformer",
        front=("wte", "wpe", "drop"),
        blocks="h",
        back=("ln_f",),
        embed=heads.embed_gpt2,
        surroundings=causal,
        causal=True,
        tasks={
            SEQUENCE: Task("GPT2ForSequenceClassification", ("score",), heads.last_token_gpt2),
            CAUSAL: Task("GPT2LMHeadModel", ("lm_head",), heads.every_token_gpt2),
        },
    ),
    "llama": _decoder("llama", "Llama"),
    "mistral": _decoder("mistral", "Mistral"),
    "qwen2": _decoder("qwen2", "Qwen2"),
    "qwen3": _decoder("qwen3", "Qwen3"),
    "gemma": _decoder("gemma", "Gemma"),
}
"""Keyed by the ``model_type`` of a model's config.json."""


def blocks_of(model: nn.Module, family: Family) -> nn.ModuleList:
    """Return the blocks of a whole model, in order."""
    blocks = model.get_submodule(family.path)
    assert isinstance(blocks, nn.ModuleList)
    return blocks


def register(family: Family, *, like: str = "") -> None:
    """Make a row of one's own known for models whose config.json has its name as ``model_type``, in this process.

    ``sflam verify MODEL --plugin FILE`` checks a row against the model's own forward.

    Args:
        family: the row.
        like: the bundled family whose config.json has the same fields, by which planning, simulations and the memory
            note count what a model costs; empty where there is none, so that such models are trained but not planned.

    Raises:
        ConfigError: the name is taken, or ``like`` is no bundled family.
    """
    costs: tuple[tuple[MutableMapping[str, Any], Any], ...] = ()
    if like:
        costs = ((READERS, alike(like)), (LIKE, like))
    add("family", family.name, family, FAMILIES, *costs)
