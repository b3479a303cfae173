"""Metrics equal scikit-learn's; what is no number is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from sflam.errors import ConfigError
from sflam.learn.metrics import METRICS, Classified, measured, register


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")
def test_metrics_equal_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    judged = Classified(labels, predicted, np.ones(len(labels), np.float32), 6)
    assert METRICS["accuracy"](judged) == pytest.approx(accuracy_score(labels, predicted))
    assert METRICS["balanced-accuracy"](judged) == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert METRICS["macro-f1"](judged) == pytest.approx(f1_score(labels, predicted, average="macro"))


def test_a_metric_that_gives_no_number_is_refused(forget: Callable[[], None]) -> None:
    judged = Classified(np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones(1, np.float32), 2)
    for name, value in (("text", "high"), ("nothing", None), ("endless", float("nan")), ("truth", True)):
        register(name, lambda _, value=value: value)
        with pytest.raises(ConfigError, match=f"learn.metric = {name} gave {value!r}; it must give a finite"):
            measured(name, judged)
