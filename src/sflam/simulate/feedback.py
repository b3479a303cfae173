"""Feedback from training to the planner: chi of the devices, measured during the run. K devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from numpy.typing import ArrayLike

from sflam.allocate.registry import method_of as allocator
from sflam.config import Job
from sflam.learn.methods import method_of
from sflam.learn.split_fleet import LocalFleet
from sflam.model.adapters import State
from sflam.planner.cell import chooses_down
from sflam.simulate.sensitivity import GradientNoise, Slowdown, gradient_noise, slowdown


class Feedback:
    """Measures a device when it is first chosen, and again once its measurement is old.

    Args:
        fleet: whose devices train; nothing of it changes.
        every: rounds after which a measurement is old.
        batches: mini-batches of a measurement.
        bias_share: of the squared gradient that a device's squared bias may be.
        down: whether the way down is measured, too.

    Attributes:
        known: device -> what was measured last.
    """

    def __init__(
        self, fleet: LocalFleet, every: int, batches: int, bias_share: float, down: bool = False
    ) -> None:
        self.fleet, self.every, self.batches, self.bias_share = fleet, every, batches, bias_share
        self.down = down
        self.known: dict[int, GradientNoise] = {}

    def update(self, round: int, devices: Sequence[int], state: State) -> None:
        """Measure those of ``devices`` that are due, at the global adapters ``state``."""
        due = [
            device
            for device in devices
            if device not in self.known or round - self.known[device].round >= self.every
        ]
        if due:
            self.known |= gradient_noise(
                self.fleet, state, due, round=round, batches=self.batches, down=self.down
            )

    def slowdown(self, devices: Sequence[int], samples: ArrayLike) -> Slowdown | None:
        """Return chi and floors of devices that are averaged by samples [K]; None where one was never measured."""
        if not all(device in self.known for device in devices):
            return None
        return slowdown([self.known[device] for device in devices], samples, self.bias_share)

    def state(self) -> dict[str, Any]:
        """Return what must survive a crash between rounds."""
        return {str(device): asdict(noise) for device, noise in self.known.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        self.known = {int(device): GradientNoise(**values) for device, values in state.items()}


def feedback_of(job: Job, halves: LocalFleet | None) -> Feedback | None:
    """Return what a job wants to be measured; None where it wants nothing, or its method quantizes nothing.

    Raises:
        ConfigError: a quantizer that adds no noise.
    """
    if not job.plan.measure_every or not method_of(job).quantized:
        return None
    assert halves is not None, "what is quantized is cut"
    wish = job.plan
    down = chooses_down(job, allocator(wish))
    return Feedback(halves, wish.measure_every, wish.measure_batches, wish.bias_share, down)
