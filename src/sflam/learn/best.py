"""Which round's model a run keeps: the last one, or the best on the validation samples; and when no better one comes.

Rounds are compared on the validation part alone, so the test part, which is scored once at the end, judges a choice
that it had no part in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sflam.model.adapters import State
from sflam.model.families import CAUSAL
from sflam.records.history import VALIDATION, RoundRecord


@dataclass(frozen=True, eq=False)
class BestRound:
    """The best model so far.

    Attributes:
        record: its round.
        state: the global adapters after it.
    """

    record: RoundRecord
    state: State

    def stored(self) -> dict[str, Any]:
        """Return what a checkpoint holds of it; the history holds the record."""
        return {"round": self.record.round, "adapters": self.state}


def best_of(kept: BestRound | None, record: RoundRecord, state: State, task: str) -> BestRound:
    """Return the better of what was kept and a new round; the earlier one where they are equal.

    Rounds are compared by ``learn.metric`` where one is set, else a language model's by validation loss and a
    classifier's by accuracy; of equals the one with the smaller loss is better.
    """
    if kept is None or worth(record, task) > worth(kept.record, task):
        return BestRound(record, state)
    return kept


def restored(stored: Mapping[str, Any], records: list[RoundRecord], like: State) -> BestRound:
    """Return what :meth:`BestRound.stored` returned; raises ValueError or KeyError when it is not of these rounds."""
    number, state = stored["round"], stored["adapters"]
    if not (isinstance(number, int) and 0 <= number < len(records)):
        raise ValueError("its best round is not one it has done")
    if {name: tensor.shape for name, tensor in state.items()} != {n: t.shape for n, t in like.items()}:
        raise ValueError("its best adapters have other names or shapes")
    return BestRound(records[number], {name: state[name].to(tensor) for name, tensor in like.items()})


def stopped(records: Sequence[RoundRecord], patience: int, task: str) -> bool:
    """Return whether a run ends early after these rounds: ``patience`` evaluations in a row without a better one.

    Args:
        records: the rounds done.
        patience: ``learn.stop_after``; 0 never ends a run.
        task: see :func:`best_of`.
    """
    scores = [worth(record, task) for record in records if record.part == VALIDATION]
    if not patience or not scores:
        return False
    best = scores.index(max(scores))  # the first of equals
    return len(scores) - 1 - best >= patience


def worth(record: RoundRecord, task: str) -> tuple[float, float]:
    """Return the validation score by which rounds are compared, larger being better; -inf where there is none."""
    loss = -math.inf if record.validation_loss is None else -record.validation_loss
    accuracy = record.validation_accuracy
    if accuracy is not None and record.metric is not None:
        return record.metric, loss
    return -math.inf if accuracy is None or task == CAUSAL else accuracy, loss
