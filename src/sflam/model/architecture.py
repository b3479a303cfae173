"""A model's shape read from its config.json: linear maps, widths and weights of a block, family by family.

A table of field names per family, the names Hugging Face writes, and the value its class takes where a config leaves
the field out. Neither torch nor transformers is needed. Shapes: s tokens, d hidden size, r LoRA rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sflam.errors import ConfigError, ModelError, unknown


@dataclass(frozen=True)
class Linear:
    """One linear map: its dotted name inside a block, and its sizes."""

    name: str
    inputs: int
    outputs: int

    @property
    def weights(self) -> int:
        """Entries of its matrix."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class HeadLayer:
    """One linear map after the blocks: for a class, or for every token of a language model.

    Attributes:
        inputs: fan in.
        outputs: fan out.
        every_token: applied to all tokens, or to one per sample.
        fresh: missing from a pretrained checkpoint, so it is trained in full.
        bias: whether it has one.
        tied: whether its matrix is that of the embedding.
    """

    inputs: int
    outputs: int
    every_token: bool = False
    fresh: bool = True
    bias: bool = True
    tied: bool = False

    @property
    def weights(self) -> int:
        """Its numbers."""
        return self.inputs * self.outputs + self.bias * self.outputs


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The numbers of one model that its cost depends on.

    Attributes:
        family: the config's ``model_type``.
        blocks: transformer blocks, Y.
        hidden: d.
        heads: attention heads, h.
        width: heads times the size of a head: what the two attention products are wide.
        projections: the maps to queries, keys and values, in this order; one map where they are merged.
        output: the map after the attention.
        mlp_in: the map into the MLP, or gate and value where it is gated.
        mlp_out: the map out of the MLP.
        activation_copies: values the MLP's activation keeps for its backward, per value of its width.
        block_weights: weights of one block, biases and norms included.
        embed_weights: weights of the embedding.
        embed_flops: FLOP of the embedding per patch; 0 for a table of words.
        extra_tokens: tokens that are not patches: class and distillation.
        tokens: tokens of an image; 0 where texts decide.
        most_tokens: positions the model has; 0 for no limit.
        tail_weights: weights of the norm after the last block.
        inner_norms: values of a token that are normalised inside the attention.
        dropouts: values of width d that a block drops some of in training.
        attention_dropout: whether attention weights are dropped in training.
        head: the layers after the last block, in order.
    """

    family: str
    blocks: int
    hidden: int
    heads: int
    width: int
    projections: tuple[Linear, ...]
    output: Linear
    mlp_in: tuple[Linear, ...]
    mlp_out: Linear
    activation_copies: int
    block_weights: int
    embed_weights: int
    embed_flops: int = 0
    extra_tokens: int = 0
    tokens: int = 0
    most_tokens: int = 0
    tail_weights: int = 0
    inner_norms: int = 0
    dropouts: int = 0
    attention_dropout: bool = False
    head: tuple[HeadLayer, ...] = ()

    @property
    def linears(self) -> tuple[Linear, ...]:
        """Every linear map of a block, in the order it runs."""
        return (*self.projections, self.output, *self.mlp_in, self.mlp_out)


class _Fields:
    """A config whose fields are read with their class's defaults, and checked."""

    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        self.config, self.where = config, where

    def count(self, key: str, default: int | None = None) -> int:
        """Return a positive whole number; an image or patch size may be a list of two equal ones."""
        value = self.config.get(key)
        value = default if value is None else value
        if isinstance(value, list) and len(set(map(str, value))) == 1:
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ModelError(
                f"{self.where}: {key} is {value!r}; the cost of a model needs it, a whole number above 0"
            )
        return value

    def number(self, key: str, default: float) -> float:
        """Return any number."""
        value = self.config.get(key, default)
        return float(value) if isinstance(value, int | float) else default

    def positive(self, key: str, default: float) -> bool:
        """Return whether a number, such as a probability of dropout, is above 0."""
        return self.number(key, default) > 0

    def flag(self, key: str, default: bool = False) -> bool:
        """Return a yes or no."""
        return bool(self.config.get(key, default))

    def copies(self, key: str, default: str) -> int:
        """Return how many values an activation keeps per value: ``gelu_new`` is written out step by step."""
        return 4 if str(self.config.get(key, default)) == "gelu_new" else 1


def read(
    config: Mapping[str, Any], *, classes: int = 10, task: str = "", where: str = "config.json"
) -> Architecture:
    """Return the architecture of a config.json.

    Args:
        config: the parsed config.json of a supported family.
        classes: labels of a classification head.
        task: ``causal-lm`` or ``classification``; empty takes what the config's ``architectures`` name.
        where: what to call the file in errors.

    Raises:
        ModelError: an unknown family, a missing or impossible number, or a task the family does not have.
    """
    family = str(config.get("model_type", ""))
    if family not in READERS:
        raise ModelError(f"{where}: {unknown('model family', family, READERS)}")
    named = " ".join(map(str, config.get("architectures") or ()))
    language = task == "causal-lm" or (not task and ("CausalLM" in named or "LMHeadModel" in named))
    if language and LIKE.get(family, family) not in LANGUAGE:
        raise ModelError(f"{where}: {family} cannot do causal-lm; choose classification")
    return READERS[family](_Fields(config, where), family, classes, language)


def _image(fields: _Fields, family: str, classes: int, language: bool) -> Architecture:
    """ViT, DeiT, BEiT, DINOv2: patches, one or two extra tokens, a class token that is classified."""
    hidden, heads = fields.count("hidden_size", 768), fields.count("num_attention_heads", 12)
    dino = family == "dinov2"
    inner = hidden * fields.count("mlp_ratio", 4) if dino else fields.count("intermediate_size", 3072)
    swiglu = dino and fields.flag("use_swiglu_ffn")
    inner = (int(inner * 2 / 3) + 7) // 8 * 8 if swiglu else inner
    patch = fields.count("patch_size", 14 if dino else 16)
    side, inside = fields.count("image_size", 224) // patch, fields.count("num_channels", 3) * patch**2
    extra = 2 if family == "deit" else 1
    tokens = side * side + extra
    biased = fields.flag("qkv_bias", True)
    maps = _maps("attention", ("q_proj", "k_proj", "v_proj"), "o_proj", hidden, hidden, hidden)
    names = ("mlp.gate_proj", "mlp.up_proj") if swiglu else ("mlp.fc1",)
    mlp_in = tuple(Linear(name, hidden, inner) for name in names)
    mlp_out = Linear("mlp.down_proj" if swiglu else "mlp.fc2", inner, hidden)
    scales = 2 * hidden * dino
    scales += 2 * hidden if family == "beit" and fields.positive("layer_scale_init_value", 0.1) else 0
    if family == "beit" and fields.flag("use_relative_position_bias"):
        scales += ((2 * side - 1) ** 2 + 3) * heads  # a table of position biases in every block
    attention_biases = (2 if family == "beit" else 3) * hidden * biased + hidden
    weights = sum(item.weights for item in (*maps, *mlp_in, mlp_out))
    placed = family != "beit" or fields.flag("use_absolute_position_embeddings")
    positions = tokens * hidden * placed
    if family == "beit" and fields.flag("use_shared_relative_position_bias"):
        positions += ((2 * side - 1) ** 2 + 3) * heads
    masks = hidden if dino and fields.flag("use_mask_token", True) else 0
    return Architecture(
        family=family,
        blocks=fields.count("num_hidden_layers", 12),
        hidden=hidden,
        heads=heads,
        width=hidden,
        projections=maps[:3],
        output=maps[3],
        mlp_in=mlp_in,
        mlp_out=mlp_out,
        activation_copies=fields.copies("hidden_act", "gelu"),
        block_weights=weights + attention_biases + sum(item.outputs for item in mlp_in) + 5 * hidden + scales,
        embed_weights=inside * hidden + hidden + positions + extra * hidden + masks,
        embed_flops=2 * inside * hidden,
        extra_tokens=extra,
        tokens=tokens,
        tail_weights=2 * hidden,
        dropouts=(1 if dino else 2) * fields.positive("hidden_dropout_prob", 0.0),
        attention_dropout=fields.positive("attention_probs_dropout_prob", 0.0),
        head=(HeadLayer((1 + dino) * hidden, classes),),
    )


def _encoder(fields: _Fields, family: str, classes: int, language: bool) -> Architecture:
    """BERT, RoBERTa, DistilBERT: words, learned positions, norms after each half."""
    distil = family == "distilbert"
    keys = ("dim", "n_heads", "hidden_dim", "n_layers") if distil else (
        "hidden_size", "num_attention_heads", "intermediate_size", "num_hidden_layers"
    )  # fmt: skip
    hidden, heads, inner, blocks = map(fields.count, keys, (768, 12, 3072, 6 if distil else 12))
    names = ("q_lin", "k_lin", "v_lin") if distil else ("self.query", "self.key", "self.value")
    maps = _maps("attention", names, "out_lin" if distil else "output.dense", hidden, hidden, hidden)
    positions = fields.count("max_position_embeddings", 512)
    types = 0 if distil else fields.count("type_vocab_size", 1 if family == "roberta" else 2)
    vocabulary = fields.count("vocab_size", 50265 if family == "roberta" else 30522)
    dense = HeadLayer(hidden, hidden, fresh=family != "bert")
    return Architecture(
        family=family,
        blocks=blocks,
        hidden=hidden,
        heads=heads,
        width=hidden,
        projections=maps[:3],
        output=maps[3],
        mlp_in=(Linear("ffn.lin1" if distil else "intermediate.dense", hidden, inner),),
        mlp_out=Linear("ffn.lin2" if distil else "output.dense", inner, hidden),
        activation_copies=fields.copies("activation" if distil else "hidden_act", "gelu"),
        block_weights=4 * hidden**2 + 2 * hidden * inner + 9 * hidden + inner,
        embed_weights=(vocabulary + positions + types + 2) * hidden,
        most_tokens=positions - 2 if family == "roberta" else positions,
        dropouts=(1 if distil else 2) * fields.positive("dropout" if distil else "hidden_dropout_prob", 0.1),
        attention_dropout=fields.positive(
            "attention_dropout" if distil else "attention_probs_dropout_prob", 0.1
        ),
        head=(dense, HeadLayer(hidden, classes)),
    )


def _gpt2(fields: _Fields, family: str, classes: int, language: bool) -> Architecture:
    """GPT-2: queries, keys and values from one map."""
    hidden = fields.count("n_embd", 768)
    inner = fields.count("n_inner", 4 * hidden)
    positions, vocabulary = fields.count("n_positions", 1024), fields.count("vocab_size", 50257)
    return Architecture(
        family=family,
        blocks=fields.count("n_layer", 12),
        hidden=hidden,
        heads=fields.count("n_head", 12),
        width=hidden,
        projections=(Linear("attn.c_attn", hidden, 3 * hidden),),
        output=Linear("attn.c_proj", hidden, hidden),
        mlp_in=(Linear("mlp.c_fc", hidden, inner),),
        mlp_out=Linear("mlp.c_proj", inner, hidden),
        activation_copies=fields.copies("activation_function", "gelu_new"),
        block_weights=4 * hidden**2 + 2 * hidden * inner + 9 * hidden + inner,
        embed_weights=(vocabulary + positions) * hidden,
        most_tokens=positions,
        tail_weights=2 * hidden,
        dropouts=2 * fields.positive("resid_pdrop", 0.1),
        attention_dropout=fields.positive("attn_pdrop", 0.1),
        head=(_decoder_head(fields, family, hidden, vocabulary, classes, language),),
    )


def _decoder(fields: _Fields, family: str, classes: int, language: bool) -> Architecture:
    """Llama, Mistral, Qwen, Gemma: rotary positions, grouped queries, a gated MLP, norms without bias."""
    hidden, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    size = fields.count("head_dim", {"qwen3": 128, "gemma": 256}.get(family) or hidden // heads)
    groups = fields.count("num_key_value_heads", heads)
    inner, width, vocabulary = fields.count("intermediate_size"), heads * size, fields.count("vocab_size")
    maps = _maps("self_attn", ("q_proj", "k_proj", "v_proj"), "o_proj", hidden, width, groups * size)
    mlp_in = (Linear("mlp.gate_proj", hidden, inner), Linear("mlp.up_proj", hidden, inner))
    mlp_out = Linear("mlp.down_proj", inner, hidden)
    projected = sum(item.outputs for item in maps[:3])
    biases = projected if family == "qwen2" else 0
    if fields.flag("attention_bias") and family != "qwen2":
        biases = projected + hidden
    if family == "llama" and fields.flag("mlp_bias"):
        biases += 2 * inner + hidden
    norms = 2 * hidden + (2 * size if family == "qwen3" else 0)
    return Architecture(
        family=family,
        blocks=fields.count("num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        width=width,
        projections=maps[:3],
        output=maps[3],
        mlp_in=mlp_in,
        mlp_out=mlp_out,
        activation_copies=fields.copies("hidden_act", "silu"),
        block_weights=sum(item.weights for item in (*maps, *mlp_in, mlp_out)) + biases + norms,
        embed_weights=vocabulary * hidden,
        tail_weights=hidden,
        inner_norms=width + groups * size if family == "qwen3" else 0,
        attention_dropout=fields.positive("attention_dropout", 0.0),
        head=(_decoder_head(fields, family, hidden, vocabulary, classes, language),),
    )


def _maps(
    place: str, names: tuple[str, str, str], after: str, hidden: int, width: int, grouped: int
) -> tuple[Linear, ...]:
    query, key, value, after = (f"{place}.{name}" for name in (*names, after))
    return (
        Linear(query, hidden, width),
        Linear(key, hidden, grouped),
        Linear(value, hidden, grouped),
        Linear(after, width, hidden),
    )


def _decoder_head(
    fields: _Fields, family: str, hidden: int, vocabulary: int, classes: int, language: bool
) -> HeadLayer:
    if language:
        tied = fields.flag("tie_word_embeddings", family in TIED)
        return HeadLayer(hidden, vocabulary, every_token=True, fresh=False, bias=False, tied=tied)
    return HeadLayer(hidden, classes, bias=False)


TIED = {"gpt2", "gemma"}
"""Families whose head for language modelling is their embedding, unless the config has another value."""
LANGUAGE = {"gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma"}
"""Families with a head for language modelling."""

Reader = Callable[[_Fields, str, int, bool], Architecture]

READERS: dict[str, Reader] = {
    **dict.fromkeys(("vit", "deit", "beit", "dinov2"), _image),
    **dict.fromkeys(("bert", "roberta", "distilbert"), _encoder),
    "gpt2": _gpt2,
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma"), _decoder),
}
"""Keyed by ``model_type``; the families are those of ``families.py``, which a test compares."""

LIKE: dict[str, str] = {}
"""Family of a user's own -> the bundled one whose fields its config.json has."""


def alike(bundled: str) -> Reader:
    """Return a reader of the config.json of a family that has the fields of a ``bundled`` one; raises ConfigError."""
    if bundled not in READERS:
        raise ConfigError(unknown("model family", bundled, READERS))

    def read_alike(fields: _Fields, family: str, classes: int, language: bool) -> Architecture:
        return replace(READERS[bundled](fields, bundled, classes, language), family=family)

    return read_alike
