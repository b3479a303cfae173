"""The loss of each device's rows in one batch: by default equal to the Hugging Face class's own on those rows.

Shapes: R rows of G groups, T tokens, C classes, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sflam.learn.settings import LearnSettings
from sflam.model.families import CAUSAL
from sflam.model.losses import target_losses

IGNORED = -100
"""The label that counts for nothing, as everywhere in Hugging Face."""


def group_losses(
    task: str,
    logits: Tensor,
    labels: Tensor,
    counts: tuple[int, ...],
    settings: LearnSettings | None = None,
    per: Sequence[int] | None = None,
) -> Tensor:
    """Return [G], the mean loss of each group of consecutive rows.

    Args:
        task: a key of ``Family.tasks``.
        logits: [R,C], or [R,T,V] for a language model.
        labels: [R], or [R,T] with ``IGNORED`` on padding for a language model (unshifted; shifted here, once).
        counts: rows of each group.
        settings: name the loss; None is the Hugging Face class's own, the cross-entropy.
        per: what each mean counts, where only some of a group's rows are here: the parts add up to the mean.
    """
    if task == CAUSAL:
        # The Hugging Face loss is in float32 whatever the model's precision; so is this one.
        logits, targets = logits[:, :-1].float(), labels[:, 1:]
    else:
        logits, targets = logits.unsqueeze(1), labels.unsqueeze(1)
    logits, flat = logits.flatten(0, 1), targets.flatten()
    if settings is None or settings.loss == "cross-entropy":
        losses = F.cross_entropy(logits, flat, reduction="none", ignore_index=IGNORED)
    else:
        counted = flat != IGNORED
        found = target_losses(logits[counted], flat[counted], settings)
        losses = found.new_zeros(len(flat)).masked_scatter(counted, found)
    valid = (targets != IGNORED).to(losses.dtype)
    group = torch.repeat_interleave(torch.tensor(counts)).to(losses.device)
    zeros = losses.new_zeros(len(counts))
    total = zeros.index_add(0, group, losses.view(targets.shape).sum(1))
    if per is not None:
        return total / zeros.new_tensor(per)
    return total / zeros.index_add(0, group, valid.sum(1))


def target_count(labels: Tensor) -> int:
    """Return how many losses the mean over these labels is of: rows [R], or tokens [R,T] that follow another."""
    return len(labels) if labels.ndim == 1 else int((labels[:, 1:] != IGNORED).sum())
