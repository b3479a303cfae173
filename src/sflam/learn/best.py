"""Which round's model a run keeps: the last one, or the best on the held-out samples.

The best of many rounds is chosen on the samples it is then reported on, so its accuracy is a little flattering.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sflam.model.adapters import State
from sflam.model.families import CAUSAL
from sflam.records.history import RoundRecord


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

    A language model's rounds are compared by held-out loss, a classifier's by accuracy, then by loss.
    """
    if kept is None or _worth(record, task) > _worth(kept.record, task):
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


def _worth(record: RoundRecord, task: str) -> tuple[float, float]:
    loss = -math.inf if record.test_loss is None else -record.test_loss
    accuracy = -math.inf if record.accuracy is None or task == CAUSAL else record.accuracy
    return accuracy, loss
