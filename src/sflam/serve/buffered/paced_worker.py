"""The trunks at work for devices at their own pace: a step between its two exchanges holds up no other device's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sflam.learn.server import Trunk, WaitingStep
from sflam.serve.dispatch import Request
from sflam.serve.trunk_worker import HomeStep, OpenRound, Worker


class PacedWorker(Worker):
    """Computes what arrives; see :class:`sflam.serve.trunk_worker.Worker`.

    With labels on the devices every device's step is made alone, and its forward once more when its gradients come: the
    graph of the first would not outlive the other devices' steps.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._between: dict[int, tuple[HomeStep, WaitingStep]] = {}
        """Device -> its step, where that is between its two exchanges."""

    def _at_home(
        self, trunk: Trunk, arrivals: list[Request], rounds: Mapping[int, OpenRound], seed: int
    ) -> None:
        for arrival in arrivals:
            device = arrival.device
            if arrival.number % self.dispatch.session.legs == 0:
                step = self._forward(trunk, [arrival], rounds, seed)
                if step is not None:
                    self._between[device] = step, trunk.put_by()
                continue
            step, waiting = self._between.pop(device)
            trunk.take_up(waiting)
            self._returned(trunk, step, {device: arrival}, rounds)
