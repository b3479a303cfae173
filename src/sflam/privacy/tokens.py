"""Words back from activations: the nearest embedding before the first block, a trained decoder behind it.

Before the first block a token's activation depends on the token and its place alone, so that the server computes those
of its whole vocabulary, and looks up which is nearest. Behind it, a linear classifier of single activations, trained on
public texts, guesses the token.

N texts, T tokens, V words of the vocabulary, d hidden size.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sflam.privacy.observer import ROWS, Observer

STEPS, RATE, DECAY = 300, 1e-2, 1e-4


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


def trained(known: Tensor, tokens: Tensor, received: Tensor, seed: int) -> Tensor:
    """Return [n], the tokens that a linear classifier, trained on public ones, sees in activations.

    Args:
        known: [m,d] activations of public tokens.
        tokens: [m] those tokens.
        received: [n,d].
        seed: of the classifier's start.
    """
    words, target = tokens.unique(return_inverse=True)
    middle, spread = known.mean(0), known.std(0).clamp_min(1e-6)
    inputs = (known - middle) / spread
    draw = torch.Generator().manual_seed(seed)
    weight = (torch.randn(inputs.shape[1], len(words), generator=draw) * 0.01).to(inputs).requires_grad_()
    bias = torch.zeros(len(words)).to(inputs).requires_grad_()
    optimizer = torch.optim.AdamW([weight, bias], lr=RATE, weight_decay=DECAY)
    for _ in range(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(inputs @ weight + bias, target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        return words[((received - middle) / spread @ weight + bias).argmax(-1)]


def rouge(original: list[NDArray[np.int64]], found: list[NDArray[np.int64]]) -> float:
    """Return the mean ROUGE-1 F of texts of tokens (Lin, 2004): words in common, wherever they stand."""
    scores = []
    for one, other in zip(original, found, strict=True):
        words, counts = np.unique(one, return_counts=True)
        guessed = dict(zip(*np.unique(other, return_counts=True), strict=True))
        common = sum(min(int(n), int(guessed.get(word, 0))) for word, n in zip(words, counts, strict=True))
        scores.append(2 * common / (len(one) + len(other)))
    return float(np.mean(scores))
