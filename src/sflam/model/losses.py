"""The losses by name: what a target's loss is. ``learn.loss`` chooses one; the mean over targets is ``group_losses``.

Shapes: N targets (samples, or tokens that are predicted), C classes (the vocabulary, for tokens).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from sflam.errors import ConfigError
from sflam.learn.settings import LearnSettings
from sflam.learn.settings.learn import LOSSES as NAMES
from sflam.registry import add

Loss = Callable[[Tensor, Tensor, LearnSettings], Tensor]
"""From logits [N,C], targets int64 [N] in 0..C-1 and the settings to the loss of each target, [N]."""


def cross_entropy(logits: Tensor, targets: Tensor, settings: LearnSettings) -> Tensor:
    """Return [N], -log p of each target: the loss of the Hugging Face classes."""
    return F.cross_entropy(logits, targets, reduction="none")


def label_smoothing(logits: Tensor, targets: Tensor, settings: LearnSettings) -> Tensor:
    """Return [N], the cross-entropy to targets that give a share of their weight to all classes alike.

    q = (1 - e) onehot + e / C, with e = ``learn.smoothing``.

    Source: C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", arXiv:1512.00567, section 7.
    """
    return F.cross_entropy(logits, targets, reduction="none", label_smoothing=settings.smoothing)


def focal(logits: Tensor, targets: Tensor, settings: LearnSettings) -> Tensor:
    """Return [N], (1 - p)^g (-log p) of each target: what is easy counts less; g = ``learn.focal_gamma``.

    Source: T.-Y. Lin et al., "Focal Loss for Dense Object Detection", arXiv:1708.02002, equation (4).
    """
    log_p = F.log_softmax(logits, -1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    # 1 - p at p = 1 has no finite derivative for g < 1, so it is kept above 0 there.
    missed = (-log_p.expm1()).clamp_min(1e-12)
    return -(missed**settings.focal_gamma) * log_p


LOSSES: dict[str, Loss] = {
    "cross-entropy": cross_entropy,
    "label-smoothing": label_smoothing,
    "focal": focal,
}

assert set(LOSSES) == set(NAMES)


def register(name: str, loss: Loss) -> None:
    """Make an own loss known as ``learn.loss = name`` in this process.

    Args:
        name: small letters, digits and hyphens.
        loss: from logits [N,C], targets int64 [N] and the settings to [N], differentiable in the logits; targets that
            count for nothing (padding) never get here.

    Raises:
        ConfigError: the name is taken, or cannot be one.
    """
    add("loss", name, loss, LOSSES)


def target_losses(logits: Tensor, targets: Tensor, settings: LearnSettings) -> Tensor:
    """Return [N], what ``learn.loss`` makes of each target.

    Raises:
        ConfigError: a loss of one's own returned something else.
    """
    found = LOSSES[settings.loss](logits, targets, settings)
    if not isinstance(found, Tensor) or found.shape != targets.shape:
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ConfigError(
            f"learn.loss = {settings.loss} gave {shape} for {len(targets)} targets; it must give the loss of each, "
            f"[{len(targets)}]"
        )
    return found
