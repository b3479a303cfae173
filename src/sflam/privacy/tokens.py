"""Words back from activations: the nearest embedding before the first block, a trained decoder behind it.

Before the first block a token's activation depends on the token and its place alone, so that the server computes those
of its whole vocabulary, and looks up which is nearest. Behind it, a linear discriminant of single activations, learned
from public texts, guesses the token.

N texts, T tokens, V words of the vocabulary, d hidden size.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sflam.privacy.observer import ROWS, Observer

RIDGE = 0.01
"""Of the mean variance within words, added to each."""


@torch.no_grad()
def nearest(observer: Observer, received: Tensor, vocabulary: int) -> Tensor:
    """Return [N,T], the tokens whose own activations at cut 0 are nearest to those received [N,T,d].

    Args:
        observer: of cut 0.
        received: activations.
        vocabulary: V.
    """
    width = received.shape[1]
    best = torch.full(received.shape[:2], torch.inf, device=received.device, dtype=received.dtype)
    found = torch.zeros(received.shape[:2], dtype=torch.int64, device=received.device)
    for first in range(0, vocabulary, ROWS):
        words = torch.arange(first, min(first + ROWS, vocabulary), device=received.device)
        each = observer.run({"input_ids": words[:, None].expand(-1, width)})  # [v,T,d]
        apart = torch.cdist(received.transpose(0, 1), each.transpose(0, 1))  # [T,N,v]
        distance, word = (values.T for values in apart.min(-1))
        closer = distance < best
        best = torch.where(closer, distance, best)
        found = torch.where(closer, words[word], found)
    return found


def trained(known: Tensor, tokens: Tensor, received: Tensor) -> Tensor:
    """Return [n], the tokens that a linear discriminant (Fisher, 1936), learned from public ones, sees in activations.

    Args:
        known: [m,d] activations of public tokens.
        tokens: [m] those tokens.
        received: [n,d].
    """
    words, target, counts = torch.unique(tokens, return_inverse=True, return_counts=True)
    rows = known.double()
    means = rows.new_zeros(len(words), rows.shape[1]).index_add_(0, target, rows) / counts[:, None]
    within = rows - means[target]
    spread = within.T @ within / len(rows)
    size = spread.diagonal().mean().clamp_min(1e-12)
    spread += RIDGE * size * torch.eye(len(spread), dtype=spread.dtype, device=spread.device)
    turned = torch.linalg.solve(spread, means.T)  # [d,W]
    offset = (counts / len(rows)).log() - (means * turned.T).sum(1) / 2
    found: Tensor = words[(received.double() @ turned + offset).argmax(-1)]
    return found


def rouge(original: list[NDArray[np.int64]], found: list[NDArray[np.int64]]) -> float:
    """Return the mean ROUGE-1 F of texts of tokens (Lin, 2004): words in common, wherever they stand."""
    scores = []
    for one, other in zip(original, found, strict=True):
        words, counts = np.unique(one, return_counts=True)
        guessed = dict(zip(*np.unique(other, return_counts=True), strict=True))
        common = sum(min(int(n), int(guessed.get(word, 0))) for word, n in zip(words, counts, strict=True))
        scores.append(2 * common / (len(one) + len(other)))
    return float(np.mean(scores))
