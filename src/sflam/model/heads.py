"""What runs before and after the blocks, family by family: a few lines each, named after what they do.

``parts`` holds the modules of a segment by their last names. Shapes: B rows, T tokens, d hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def embed_image(parts: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Patches of ``pixel_values`` [B,C,H,W], in the precision of the weights."""
    dtype = next(parts.embeddings.parameters()).dtype
    hidden: Tensor = parts.embeddings(inputs["pixel_values"].to(dtype))
    return hidden


def embed_tokens_and_positions(parts: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """BERT-like: one module adds words, positions and types of ``input_ids`` [B,T]."""
    hidden: Tensor = parts.embeddings(input_ids=inputs["input_ids"])
    return hidden


def embed_tokens(parts: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Llama-like: words alone; positions are rotary."""
    hidden: Tensor = parts.embed_tokens(inputs["input_ids"])
    return hidden


def embed_gpt2(parts: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """GPT-2: words plus learned positions, then dropout."""
    ids = inputs["input_ids"]
    positions = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
    hidden: Tensor = parts.drop(parts.wte(ids) + parts.wpe(positions))
    return hidden


def class_token(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """ViT, DeiT: the class token."""
    logits: Tensor = parts.classifier(parts.layernorm(hidden)[:, 0])
    return logits


def class_token_and_mean(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """DINOv2: the class token beside the mean of the patches."""
    hidden = parts.layernorm(hidden)
    logits: Tensor = parts.classifier(torch.cat([hidden[:, 0], hidden[:, 1:].mean(dim=1)], dim=1))
    return logits


def pooled_patches(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """BEiT: its own pooler over the patches."""
    logits: Tensor = parts.classifier(parts.pooler(parts.layernorm(hidden)))
    return logits


def pooled_token(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """BERT: the pooled first token, then dropout."""
    logits: Tensor = parts.classifier(parts.dropout(parts.pooler(hidden)))
    return logits


def own_head(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """RoBERTa: a head that takes all tokens and picks the first itself."""
    logits: Tensor = parts.classifier(hidden)
    return logits


def first_token_through_relu(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """DistilBERT: a dense layer, ReLU and dropout on the first token."""
    logits: Tensor = parts.classifier(parts.dropout(parts.pre_classifier(hidden[:, 0]).relu()))
    return logits


def every_token(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """Language model: logits of every token, [B,T,V]."""
    logits: Tensor = parts.lm_head(parts.norm(hidden))
    return logits


def every_token_gpt2(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """GPT-2's language model: its norm has another name."""
    logits: Tensor = parts.lm_head(parts.ln_f(hidden))
    return logits


def last_token(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """Classifier of a decoder: the last valid token."""
    logits: Tensor = parts.score(_last_valid(parts.norm(hidden), lengths))
    return logits


def last_token_gpt2(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """GPT-2's classifier."""
    logits: Tensor = parts.score(_last_valid(parts.ln_f(hidden), lengths))
    return logits


def _last_valid(hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the last valid token of every row, [B,d]."""
    if lengths is None:
        return hidden[:, -1]
    return hidden[torch.arange(len(hidden), device=hidden.device), lengths.to(hidden.device).long() - 1]
