"""The attacks on texts, and how many words they read.

N texts, T tokens, d hidden size.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sflam.learn.examples import Minibatch
from sflam.model.dummy_inputs import valid_tokens
from sflam.privacy.finding import Finding
from sflam.privacy.observer import Observer
from sflam.privacy.tokens import nearest, rouge, trained

INPUT = "input_ids"


def attack_texts(
    observer: Observer, targets: Minibatch, public: Minibatch, bits: int | None, vocabulary: int
) -> list[Finding]:
    """Return what every attack on texts finds at a cut and width.

    Args:
        observer: of the cut.
        targets: the texts attacked.
        public: texts that the server has.
        bits: per value sent; None for floats.
        vocabulary: words that the model knows.
    """
    received, valid = observer.received(targets, bits), _valid(targets)
    known, there = observer.received(public, bits, whole=True), _valid(public)
    words = public.inputs[INPUT][there]
    attempts: dict[str, Tensor] = {}
    if not observer.cut:
        attempts["lookup"] = nearest(observer, received, vocabulary)[valid]
    attempts["decoder"] = trained(known[there], words, received[valid])
    original = targets.inputs[INPUT][valid]
    common = torch.full_like(original, int(words.mode().values))
    came = observer.seen(targets, received.shape[1])[valid]
    attempts = {name: torch.where(came, found, common) for name, found in attempts.items()}
    counts = valid.sum(1).tolist()
    return [
        Finding(
            cut=observer.cut,
            bits=bits,
            attack=name,
            about="texts",
            measure="tokens read",
            score=_right(found, original),
            guess=_right(common, original),
            more={"rouge_1": rouge(*(_texts(each, counts) for each in (original, found)))},
        )
        for name, found in attempts.items()
    ]


def _right(found: Tensor, original: Tensor) -> float:
    return float((found == original).double().mean())


def _texts(tokens: Tensor, counts: list[int]) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    return [each.numpy() for each in torch.split(tokens.cpu(), counts)]


def _valid(batch: Minibatch) -> Tensor:
    """Return [N,T], where a text has tokens."""
    rows, width = batch.inputs[INPUT].shape
    if batch.lengths is None:
        return torch.ones(rows, width, dtype=torch.bool, device=batch.inputs[INPUT].device)
    return valid_tokens(batch.lengths, width).bool()
