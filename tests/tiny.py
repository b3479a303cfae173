"""Tiny random models and batches for tests: every family, seconds on one core."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor

from sflam.model.backbone import Backbone, wrap

DEPTH = 3
WIDTH = 32
VOCABULARY = 50
CLASSES = 4

KINDS = ("vit", "bert", "gpt2", "gpt2-lm")


def tiny(kind: str, *, dropout: float = 0.0, dtype: torch.dtype = torch.float64, seed: int = 0) -> Backbone:
    """Return a random three-block model of the kind, in evaluation-free training precision."""
    torch.manual_seed(seed)
    model: Any
    if kind == "vit":
        model = transformers.ViTForImageClassification(
            transformers.ViTConfig(
                hidden_size=WIDTH,
                num_hidden_layers=DEPTH,
                num_attention_heads=4,
                intermediate_size=48,
                image_size=16,
                patch_size=4,
                num_channels=1,
                num_labels=CLASSES,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=dropout,
            )
        )
        fresh = ("classifier",)
    elif kind == "bert":
        model = transformers.BertForSequenceClassification(
            transformers.BertConfig(
                vocab_size=VOCABULARY,
                hidden_size=WIDTH,
                num_hidden_layers=DEPTH,
                num_attention_heads=4,
                intermediate_size=48,
                max_position_embeddings=32,
                num_labels=CLASSES,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=dropout,
                pad_token_id=0,
            )
        )
        fresh = ("classifier",)
    else:
        config = transformers.GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=WIDTH,
            n_layer=DEPTH,
            n_head=4,
            n_positions=32,
            num_labels=CLASSES,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        if kind == "gpt2":
            model, fresh = transformers.GPT2ForSequenceClassification(config), ("score",)
        else:
            model, fresh = transformers.GPT2LMHeadModel(config), ()
    return wrap(model.to(dtype), name=kind, fresh=fresh)


def batch(kind: str, rows: int = 5, tokens: int = 9, *, seed: int = 1, full: bool = False) -> dict[str, Any]:
    """Return ``inputs``, ``lengths`` and ``labels`` of a random batch, padded unless ``full`` or an image."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (rows,), generator=draw)
    if kind == "vit":
        pixels = torch.randn(rows, 1, 16, 16, generator=draw, dtype=torch.float64)
        return {"inputs": {"pixel_values": pixels}, "lengths": None, "labels": labels}
    ids = torch.randint(1, VOCABULARY, (rows, tokens), generator=draw)
    if full:
        lengths = None
    else:
        lengths = torch.randint(2, tokens + 1, (rows,), generator=draw)
        lengths[0] = tokens
        ids[torch.arange(tokens)[None, :] >= lengths[:, None]] = 0
    if kind == "gpt2-lm":
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
