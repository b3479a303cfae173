"""Tiny random models and batches for tests: every family, seconds on one core."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor

from sflam.model.backbone import Backbone, wrap
from sflam.model.families import FAMILIES

DEPTH = 3
WIDTH = 32
VOCABULARY = 50
CLASSES = 4

IMAGE = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 16,
    "patch_size": 4,
    "num_channels": 1,
}
ENCODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
DISTIL = {
    "vocab_size": VOCABULARY,
    "dim": WIDTH,
    "n_layers": DEPTH,
    "n_heads": 4,
    "hidden_dim": 48,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": WIDTH,
    "n_layer": DEPTH,
    "n_head": 4,
    "n_positions": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DECODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

# kind -> (class, configuration, the linear layers of a head that a pretrained checkpoint would lack)
MODELS: dict[str, tuple[str, str, dict[str, Any], tuple[str, ...]]] = {
    "vit": ("ViTForImageClassification", "ViTConfig", IMAGE, ("classifier",)),
    "deit": ("DeiTForImageClassification", "DeiTConfig", IMAGE, ("classifier",)),
    "beit": ("BeitForImageClassification", "BeitConfig", IMAGE, ("classifier",)),
    "beit-relative": (
        "BeitForImageClassification",
        "BeitConfig",
        IMAGE | {"use_shared_relative_position_bias": True, "use_mean_pooling": False},
        ("classifier",),
    ),
    "dinov2": ("Dinov2ForImageClassification", "Dinov2Config", IMAGE | {"mlp_ratio": 2}, ("classifier",)),
    "bert": ("BertForSequenceClassification", "BertConfig", ENCODER, ("classifier",)),
    "roberta": (
        "RobertaForSequenceClassification",
        "RobertaConfig",
        ENCODER,
        ("classifier.dense", "classifier.out_proj"),
    ),
    "distilbert": (
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        DISTIL,
        ("pre_classifier", "classifier"),
    ),
    "gpt2": ("GPT2ForSequenceClassification", "GPT2Config", GPT2, ("score",)),
    "gpt2-lm": ("GPT2LMHeadModel", "GPT2Config", GPT2, ()),
    "llama": ("LlamaForSequenceClassification", "LlamaConfig", DECODER, ("score",)),
    "llama-lm": ("LlamaForCausalLM", "LlamaConfig", DECODER | {"tie_word_embeddings": True}, ()),
    "mistral": (
        "MistralForSequenceClassification",
        "MistralConfig",
        DECODER | {"sliding_window": 4},
        ("score",),
    ),
    "qwen2-lm": (
        "Qwen2ForCausalLM",
        "Qwen2Config",
        DECODER | {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
        (),
    ),
    "qwen3-lm": ("Qwen3ForCausalLM", "Qwen3Config", DECODER, ()),
    "gemma-lm": ("GemmaForCausalLM", "GemmaConfig", DECODER, ()),
}

OPT = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "ffn_dim": 48,
    "word_embed_proj_dim": WIDTH,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}

# In no known family: split by what they look like.
STRANGERS: dict[str, tuple[str, str, dict[str, Any], tuple[str, ...]]] = {
    "electra": (
        "ElectraForSequenceClassification",
        "ElectraConfig",
        ENCODER | {"embedding_size": 16},
        ("classifier.dense", "classifier.out_proj"),
    ),
    "msn": ("ViTMSNForImageClassification", "ViTMSNConfig", IMAGE, ("classifier",)),
    "opt": ("OPTForSequenceClassification", "OPTConfig", OPT, ("score",)),
    "opt-lm": ("OPTForCausalLM", "OPTConfig", OPT, ()),
    "neox-lm": ("GPTNeoXForCausalLM", "GPTNeoXConfig", DECODER, ()),
    "phi": ("PhiForSequenceClassification", "PhiConfig", DECODER, ("score",)),
    "gemma2-lm": ("Gemma2ForCausalLM", "Gemma2Config", DECODER, ()),
    "gemma3-lm": ("Gemma3ForCausalLM", "Gemma3TextConfig", DECODER | {"sliding_window": 4}, ()),
    "modernbert": (
        "ModernBertForSequenceClassification",
        "ModernBertConfig",
        ENCODER | {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
        ("classifier",),
    ),
}

# Like blocks in a list, and yet no cut between them is the whole model.
INSEPARABLE: dict[str, tuple[str, str, dict[str, Any], tuple[str, ...]]] = {
    "albert": (
        "AlbertForSequenceClassification",
        "AlbertConfig",
        ENCODER | {"embedding_size": 16},
        ("classifier",),
    ),
    "deberta": (
        "DebertaV2ForSequenceClassification",
        "DebertaV2Config",
        ENCODER | {"conv_kernel_size": 3},
        ("classifier",),
    ),
    "swin": (
        "SwinForImageClassification",
        "SwinConfig",
        {
            "image_size": 16,
            "patch_size": 2,
            "num_channels": 1,
            "embed_dim": 8,
            "depths": [2, 2],
            "num_heads": [2, 2],
            "window_size": 4,
        },
        ("classifier",),
    ),
    "bart": ("BartForSequenceClassification", "BartConfig", {"vocab_size": VOCABULARY, "d_model": WIDTH}, ()),
    "opt-drop": ("OPTForSequenceClassification", "OPTConfig", OPT | {"layerdrop": 0.5}, ("score",)),
}

KINDS = ("vit", "bert", "gpt2", "gpt2-lm")
"""One of each shape of problem: enough where the family does not matter."""

EVERY_KIND = tuple(MODELS)

assert {kind.partition("-")[0] for kind in MODELS} == set(FAMILIES), "every family has a tiny model"


def tiny(kind: str, *, dropout: float = 0.0, dtype: torch.dtype = torch.float64, seed: int = 0) -> Backbone:
    """Return a random three-block model of the kind; biases that start at zero are made real."""
    torch.manual_seed(seed)
    architecture, configuration, options, fresh = (MODELS | STRANGERS | INSEPARABLE)[kind]
    config = getattr(transformers, configuration)(**options, num_labels=CLASSES)
    for name, value in config.to_dict().items():
        if isinstance(value, float) and "drop" in name and name != "layerdrop":
            setattr(config, name, dropout)
    model = getattr(transformers, architecture)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias_table"):
                parameter.normal_(std=0.5)
    return wrap(model.to(dtype), name=kind, fresh=fresh)


def is_image(kind: str) -> bool:
    """Whether the kind reads images."""
    return "image_size" in (MODELS | STRANGERS)[kind][2]


def is_lm(kind: str) -> bool:
    """Whether the kind is a language model."""
    return kind.endswith("-lm")


def batch(kind: str, rows: int = 5, tokens: int = 9, *, seed: int = 1, full: bool = False) -> dict[str, Any]:
    """Return ``inputs``, ``lengths`` and ``labels`` of a random batch, padded unless ``full`` or an image."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (rows,), generator=draw)
    if is_image(kind):
        pixels = torch.randn(rows, 1, 16, 16, generator=draw, dtype=torch.float64)
        return {"inputs": {"pixel_values": pixels}, "lengths": None, "labels": labels}
    ids = torch.randint(1, VOCABULARY, (rows, tokens), generator=draw)
    if full:
        lengths = None
    else:
        lengths = torch.randint(2, tokens + 1, (rows,), generator=draw)
        lengths[0] = tokens
        ids[torch.arange(tokens)[None, :] >= lengths[:, None]] = 0
    if is_lm(kind):
        labels = ids.clone()
        if lengths is not None:
            labels[torch.arange(tokens)[None, :] >= lengths[:, None]] = -100
    return {"inputs": {"input_ids": ids}, "lengths": lengths, "labels": labels}


def whole_arguments(one: dict[str, Any]) -> dict[str, Tensor]:
    """Return the arguments of the unmodified Hugging Face class for a batch of :func:`batch`."""
    arguments = dict(one["inputs"], labels=one["labels"])
    if one["lengths"] is not None:
        width = one["inputs"]["input_ids"].shape[1]
        arguments["attention_mask"] = (torch.arange(width)[None, :] < one["lengths"][:, None]).long()
    return arguments


def largest_difference(a: Tensor, b: Tensor) -> float:
    """max|a-b| / max|b|; where ``b`` is exactly zero in theory and tiny in practice, max|a-b| itself."""
    a, b = a.detach(), b.detach()
    scale = float(b.abs().max())
    difference = float((a - b).abs().max())
    return difference if scale < 1e-12 else difference / scale
