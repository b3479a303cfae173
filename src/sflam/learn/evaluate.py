"""Evaluation of the whole model: the aggregated device half joined with the aggregated server half."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor

from sflam.learn.examples import Examples, Minibatch
from sflam.learn.precision import arithmetic
from sflam.model.families import CAUSAL
from sflam.model.loss import IGNORED
from sflam.model.probe import valid_tokens

ROWS = 256
"""Rows per forward pass."""


@dataclass(frozen=True)
class Score:
    """How well a model does on a dataset.

    Attributes:
        loss: mean loss per sample, or per predicted token for a language model.
        accuracy: share of labels (of tokens, for a language model) predicted right, in [0, 1].
        perplexity: exp(loss) for a language model, else None.
    """

    loss: float
    accuracy: float
    perplexity: float | None = None


@torch.no_grad()
def logits_of(model: PeftModel, batch: Minibatch) -> Tensor:
    """Return the unmodified Hugging Face forward's logits for a mini-batch."""
    arguments = dict(batch.inputs)
    if batch.lengths is not None:
        arguments["attention_mask"] = valid_tokens(batch.lengths, batch.inputs["input_ids"].shape[1])
    with arithmetic(model):
        out: Tensor = model(**arguments).logits
    return out


@torch.no_grad()
def evaluate(model: PeftModel, examples: Examples, *, rows: int = ROWS) -> Score:
    """Score the whole model, in evaluation mode, on every sample once."""
    training = model.training
    model.eval()
    loss = right = count = 0.0
    for start in range(0, len(examples), rows):
        batch = examples.take(np.arange(start, min(start + rows, len(examples))))
        logits, labels = logits_of(model, batch).float(), batch.labels
        if examples.task == CAUSAL:
            logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        loss += float(
            torch.nn.functional.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORED)
        )
        right += int((logits.argmax(-1) == labels).sum())
        count += int((labels != IGNORED).sum())
    model.train(training)
    mean = loss / count
    return Score(mean, right / count, perplexity(mean) if examples.task == CAUSAL else None)


def perplexity(loss: float) -> float:
    """Return exp(loss) of a mean loss per token in nats; infinity where that overflows."""
    return math.exp(loss) if loss < 700 else math.inf
