"""What becomes of what the devices of a round trained: one place for every fleet, simulated or served.

1. devices count as ``learn.weighting`` has it
2. ``learn.aggregation`` averages, or ``learn.robust``
3. ``learn.server_optimizer`` moves the global adapters by the average less where the round began
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sflam.learn.aggregate import aggregation_error, fedavg, residuals, weights_of
from sflam.learn.flexlora import redistributed
from sflam.learn.moved import moved
from sflam.learn.robust import robust
from sflam.learn.selection import Chances
from sflam.learn.server_optimizers.registry import server_optimizer
from sflam.learn.settings import LearnSettings
from sflam.learn.weighting import counted
from sflam.model.adapters import State

Mean = Callable[[Sequence[State], Sequence[float]], State]
"""Returns the average of states by what each counts."""


@dataclass(frozen=True)
class Averaged:
    """The outcome of a round.

    Attributes:
        state: the new global adapters.
        error: what the average loses of mean(BA), relative; None where no factors are averaged apart.
        residual: mean(BA) - mean(B) mean(A) of every module, where ``learn.aggregation`` is ``residual``; else empty.
        moved: device -> how far it moved what it trained, see :func:`sflam.learn.moved.moved`.
    """

    state: State
    error: float | None
    residual: State
    moved: Mapping[int, float] = field(default_factory=dict)


class Averaging:
    """Averages, and moves the global adapters, with what the server's optimiser remembers.

    Args:
        learn: how a round is run.
        sampling: ``data.sampling``.
        factors: whether adapters are trained.
    """

    def __init__(self, learn: LearnSettings, sampling: str, *, factors: bool) -> None:
        self.learn, self.sampling = learn, sampling
        self.optimizer = server_optimizer(learn)
        self._kind = learn.practice.aggregation
        self._apart = factors and self._kind != "freeze-a"

    def __call__(
        self,
        start: Mapping[str, Tensor],
        states: Mapping[int, State],
        trained: Mapping[int, int],
        held: Mapping[int, int],
        chance: Chances = 1.0,
        mean: Mean | None = None,
    ) -> Averaged:
        """Return the new global adapters; what no device trained stays as it was.

        Args:
            start: the global adapters of the round's beginning.
            states: device -> what it trained, by name.
            trained: device -> its rows of the round.
            held: device -> n_k.
            chance: device -> p_k, with which a round drew it; one number where all are alike.
            mean: averages states by counts; a plain weighted mean by default.
        """
        own_rows = {device: trained[device] for device in states}
        counts = counted(self.learn, self.sampling, own_rows, held, chance)
        weights, own = weights_of(counts), list(states.values())
        residual: State = {}
        error: float | None = None
        if self._kind == "svd":
            averaged, error = redistributed(own, weights, start)
        elif self.learn.robust != "none":
            # whatever averages states else does so by servers, and there is one: run.compatibility sees to it
            averaged = robust(self.learn.robust, self.learn.robust_share, own, weights)
        else:
            averaged = mean(own, counts) if mean else fedavg(own, weights)
            error = aggregation_error(own, weights) if self._apart else None
            if self._kind == "residual" and self._apart:
                residual = residuals(own, weights)
        state = dict(start) | self.optimizer.step(start, averaged)
        return Averaged(state, error, residual, moved(start, states))

    def state(self) -> dict[str, Any]:
        """Return what must survive a crash between rounds."""
        found = self.optimizer.state()
        return {"server_optimizer": found} if found else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        if "server_optimizer" in state:
            self.optimizer.restore(state["server_optimizer"])
