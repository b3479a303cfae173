"""A Flower strategy in the place of our own average: it decides over the adapters on both sides of the cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from sflam.errors import ServeError
from sflam.flower.nodes import NodeSummons
from sflam.flower.records import adapter_record, adapters_from
from sflam.learn.averaging import Averaged, Averaging, Mean
from sflam.learn.selection import Chances
from sflam.learn.split_fleet import LocalFleet
from sflam.model.adapters import State

WEIGHT = "num-examples"
"""The metric by which Flower's strategies weigh a reply."""


class StrategyAveraging(Averaging):
    """Averages as a strategy does, by what devices count.

    A reply that the strategy sees holds all adapters of a device: those it sent, and the server's copy for it.

    Args:
        local: the job's simulated fleet, which averages otherwise.
        strategy: decides.
        summons: knows the replies of the round.
        names: the adapters that are trained, in the order of the global ones.
    """

    def __init__(
        self, local: LocalFleet, strategy: Strategy, summons: NodeSummons, names: Sequence[str]
    ) -> None:
        super().__init__(local.learn, local.sampling, factors=True)
        self.strategy, self.summons, self.names = strategy, summons, names

    def __call__(
        self,
        start: Mapping[str, Tensor],
        states: Mapping[int, State],
        trained: Mapping[int, int],
        held: Mapping[int, int],
        chance: Chances = 1.0,
        mean: Mean | None = None,
    ) -> Averaged:
        """Return the new global adapters; see :class:`sflam.learn.averaging.Averaging`."""
        decided = partial(self._decided, tuple(states))
        return super().__call__(start, states, trained, held, chance, decided)

    def _decided(self, devices: Sequence[int], states: Sequence[State], counts: Sequence[float]) -> State:
        """Return what the strategy makes of the states of these devices, which count so much."""
        replies = [
            self._reply(device, state, count)
            for device, state, count in zip(devices, states, counts, strict=True)
        ]
        found, _ = self.strategy.aggregate_train(self.summons.round + 1, replies)
        if found is None:
            raise ServeError(
                f"round {self.summons.round + 1}: the strategy {type(self.strategy).__name__} averaged none of "
                f"{len(replies)} replies; see its lines above"
            )
        return adapters_from(found, states[0], self.names)

    def _reply(self, device: int, state: State, count: float) -> Message:
        """Return the reply of a device's node with all that the device trained."""
        assert state.keys() == set(self.names), "the rules of Flower let only alike devices through"
        arrays: ArrayRecord = adapter_record(state, self.names)
        message = self.summons.replies[device]
        message.content = RecordDict({"arrays": arrays, "metrics": MetricRecord({WEIGHT: float(count)})})
        return message


def trained_names(local: LocalFleet, state: Mapping[str, object]) -> list[str]:
    """Return the adapters that anything of a fleet trains, in the order of the global ``state``."""
    segments = (local.devices.segment, *(trunk.segment for trunk in local.servers.trunks.values()))
    trained = {name for segment in segments for name in segment.names()}
    return [name for name in state if name in trained]
