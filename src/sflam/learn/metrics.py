"""The metrics by name: how good predictions are, beside the accuracy. ``learn.metric`` chooses one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sflam.errors import ConfigError
from sflam.learn.settings.learn import METRICS as NAMES
from sflam.registry import add


@dataclass(frozen=True, eq=False)
class Classified:
    """What a model predicted for N samples, or for N tokens, and what is true.

    Attributes:
        labels: int64 [N], the true classes.
        predicted: int64 [N], the most probable class of each.
        confidence: float32 [N], the probability the model gave that class.
        classes: how many classes C there are; the vocabulary, for tokens.
    """

    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    classes: int


Metric = Callable[[Classified], float]
"""A pure function; larger is better."""


def accuracy(judged: Classified) -> float:
    """Return the share predicted right."""
    return float((judged.predicted == judged.labels).mean())


def balanced_accuracy(judged: Classified) -> float:
    """Return the mean recall of the classes that occur among the labels.

    Source: K. H. Brodersen et al., "The Balanced Accuracy and Its Posterior Distribution", ICPR 2010.
    """
    count = np.bincount(judged.labels, minlength=judged.classes)
    right = np.bincount(judged.labels[judged.predicted == judged.labels], minlength=judged.classes)
    occurs = count > 0
    return float((right[occurs] / count[occurs]).mean())


def macro_f1(judged: Classified) -> float:
    """Return the mean over classes of 2 TP / (2 TP + FP + FN); a class neither true nor predicted does not count.

    As ``f1_score(average="macro")`` of scikit-learn.
    """
    count = np.bincount(judged.labels, minlength=judged.classes)
    named = np.bincount(judged.predicted, minlength=judged.classes)
    right = np.bincount(judged.labels[judged.predicted == judged.labels], minlength=judged.classes)
    occurs = count + named > 0
    return float((2 * right[occurs] / (count + named)[occurs]).mean())


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "balanced-accuracy": balanced_accuracy,
    "macro-f1": macro_f1,
}

assert set(METRICS) == set(NAMES)


def register(name: str, metric: Metric) -> None:
    """Make an own metric known as ``learn.metric = name`` in this process.

    Args:
        name: small letters, digits and hyphens.
        metric: from what was predicted and what is true to a number, larger being better; a pure function.

    Raises:
        ConfigError: the name is taken, or cannot be one.
    """
    add("metric", name, metric, METRICS)


def measured(name: str, judged: Classified) -> float:
    """Return a metric of predictions; raises ConfigError where one of a user's own gives no finite number."""
    found = METRICS[name](judged)
    if isinstance(found, bool) or not isinstance(found, int | float | np.number) or not math.isfinite(found):
        raise ConfigError(f"learn.metric = {name} gave {found!r}; it must give a finite number")
    return float(found)
