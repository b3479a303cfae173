"""Evaluation of the whole model: the aggregated device half joined with the aggregated server half."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor

from sflam.learn.examples import Examples, Minibatch
from sflam.learn.metrics import Classified, measured
from sflam.learn.precision import arithmetic
from sflam.learn.world.world import ALONE, World
from sflam.model.dummy_inputs import with_mask
from sflam.model.families import CAUSAL
from sflam.model.loss import IGNORED

ROWS = 256
"""Rows per forward pass."""


@dataclass(frozen=True)
class Score:
    """How well a model does on a dataset.

    Attributes:
        loss: mean loss per sample, or per predicted token for a language model.
        accuracy: share of labels (of tokens, for a language model) predicted right, in [0, 1].
        perplexity: exp(loss) for a language model, else None.
        per_class: share of each class's samples predicted right, None for a class without any; empty for a language
            model.
        metric: what ``learn.metric`` makes of the predictions; None where that is the accuracy.
        per_device: ``per_class`` of each device's own model; empty where all devices have one model.
    """

    loss: float
    accuracy: float
    perplexity: float | None = None
    per_class: tuple[float | None, ...] = ()
    metric: float | None = None
    per_device: tuple[tuple[float | None, ...], ...] = ()


def mean_score(found: Sequence[Score]) -> Score:
    """Return the mean over devices of what each one's own model scores."""
    metrics = [item.metric for item in found if item.metric is not None]
    shares = list(zip(*(item.per_class for item in found), strict=True))
    return Score(
        loss=sum(item.loss for item in found) / len(found),
        accuracy=sum(item.accuracy for item in found) / len(found),
        metric=sum(metrics) / len(found) if metrics else None,
        per_class=tuple(None if None in each else sum(each) / len(found) for each in shares),
        per_device=tuple(item.per_class for item in found),
    )


def logits_of(model: PeftModel, batch: Minibatch) -> Tensor:
    """Return the unmodified Hugging Face forward's logits for a mini-batch."""
    with arithmetic(model):
        out: Tensor = model(**with_mask(batch.inputs, batch.lengths)).logits
    return out


@torch.no_grad()
def scores_of(model: PeftModel, examples: Examples, classes: int) -> Tensor:
    """Return the logits of every sample, float32 [N,C] on the CPU, in the order of the samples.

    Args:
        model: in evaluation mode afterwards.
        examples: N samples.
        classes: C.
    """
    model.eval()
    scores = torch.empty(len(examples), classes)
    for indices in examples.in_length_order(ROWS):
        scores[torch.from_numpy(indices)] = logits_of(model, examples.take(indices)).float().cpu()
    return scores


@torch.no_grad()
def evaluate(
    model: PeftModel,
    examples: Examples,
    *,
    metric: str = "accuracy",
    rows: int = ROWS,
    between: Callable[[], None] = lambda: None,
    world: World = ALONE,
) -> Score:
    """Score the whole model, in evaluation mode, on every sample once.

    Args:
        model: the model.
        examples: the samples.
        metric: a metric by name; see :mod:`sflam.learn.metrics`.
        rows: per forward pass.
        between: called before each of them; what it raises ends the evaluation.
        world: the ranks, each of which calls this, that share the passes.
    """
    training = model.training
    model.eval()
    own: dict[int, _Passed] = {}
    for number, indices in enumerate(examples.in_length_order(rows)):
        if number % world.size == world.rank:
            between()
            own[number] = _passed(model, examples.take(indices), examples.task, metric)
    model.train(training)
    found = {number: one for every in world.gather(own) for number, one in every.items()}
    passes = [found[number] for number in sorted(found)]  # sums are made in the order of one process
    loss = 0.0
    for one in passes:  # sum() would compensate, and not give what it gave
        loss += one["loss"]
    right, count = (_total([one[name] for one in passes]) for name in ("right", "count"))
    mean, accuracy = loss / float(count.sum()), float(right.sum() / count.sum())
    judged = [one["judged"] for one in passes if one["judged"]]
    score = measured(metric, _joined(judged)) if judged else None
    if examples.task == CAUSAL:
        return Score(mean, accuracy, perplexity(mean), metric=score)
    shares = tuple(_shares(right, count, len(examples.dataset.classes)))
    return Score(mean, accuracy, per_class=shares, metric=score)


_Passed = dict[str, Any]
"""Of one forward pass: the sum of losses, by label how many were right and how many there were, the predictions."""


def _passed(model: PeftModel, batch: Minibatch, task: str, metric: str) -> _Passed:
    logits, labels = logits_of(model, batch).float(), batch.labels
    if task == CAUSAL:
        logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORED)
    hits, counted = logits.argmax(-1) == labels, labels != IGNORED
    return {
        "loss": float(loss),
        "right": torch.bincount(labels[hits & counted]),
        "count": torch.bincount(labels[counted]),
        "judged": _judged(logits[counted], labels[counted]) if metric != "accuracy" else {},
    }


def _judged(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    confidence, predicted = logits.softmax(-1).max(-1)
    classes = logits.shape[-1]
    found = {"labels": labels, "predicted": predicted, "confidence": confidence.float()}
    return {name: tensor.cpu() for name, tensor in found.items()} | {"classes": classes}


def _joined(parts: Sequence[Mapping[str, Any]]) -> Classified:
    def column(name: str) -> NDArray[Any]:
        return torch.cat([part[name] for part in parts]).numpy()

    return Classified(column("labels"), column("predicted"), column("confidence"), parts[0]["classes"])


def _total(counts: Sequence[Tensor]) -> NDArray[Any]:
    """Return how often each label occurred in all passes."""
    width = max(len(each) for each in counts)
    return sum((np.pad(each.cpu().numpy(), (0, width - len(each))) for each in counts), np.zeros(width))


def _shares(right: NDArray[Any], count: NDArray[Any], classes: int) -> list[float | None]:
    padded = [np.pad(counts, (0, max(0, classes - len(counts)))) for counts in (right, count)]
    return [float(hits / all_) if all_ else None for hits, all_ in zip(*padded, strict=True)]


def perplexity(loss: float) -> float:
    """Return exp(loss) of a mean loss per token in nats; infinity where that overflows."""
    return math.exp(loss) if loss < 700 else math.inf
