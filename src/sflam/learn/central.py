"""The reference: the whole adapted model on all the data, as many samples a round as the fleet would use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sflam.cost.memory import FleetMemory
from sflam.cost.training import Step
from sflam.data.batches import batches
from sflam.learn.counted_memory import whole_model_memory
from sflam.learn.optimizers import optimizer_state, restore_optimizer
from sflam.learn.settings.schedule import Moment
from sflam.learn.steps import Average, Steps
from sflam.learn.whole_model import WholeModel
from sflam.model.adapters import State, load_state, state_of
from sflam.seeds import derive, generator


class Central(WholeModel):
    """Plain peft training of the unmodified model behind the same seam as a fleet; nothing crosses a network.

    A round pools the samples of the devices that would have taken part.
    """

    def download(self, round: int, devices: Sequence[int], state: State) -> int:
        """Begin a round from ``state``; nothing is sent."""
        load_state(self.model, state)
        if self.learn.practice.state == "reset":
            self.optimizer.state.clear()
        return 0

    def local_steps(self, round: int, devices: Sequence[int]) -> Steps:
        """Train on the pooled samples of the devices."""
        done = Steps(samples=dict.fromkeys(devices, 0), pooled=True)
        pooled = np.sort(np.concatenate([self.parts[device] for device in devices]))
        drawn = batches(
            pooled,
            self.learn.batch,
            generator(self.seed, "batches", round),
            steps=self.learn.local_steps * len(devices),
            epochs=self.learn.local_epochs,
            lengths=self.examples.buckets,
        )
        self.model.train()
        for step, indices in enumerate(drawn):
            batch = self.examples.take(indices)
            self.pace(Moment(round, step, len(drawn)))
            done.learned(devices[0], self.step(batch, derive(self.seed, "dropout", round, step)), len(batch))
        done.device_steps = len(drawn)
        return done

    def average(self, round: int, devices: Sequence[int], steps: Steps) -> Average:
        """Return what was trained: there is nothing to average."""
        return Average(state_of(self.model), None)

    def memory(self, step: Step) -> FleetMemory:
        """Return what its one machine needs for a training step."""
        own = whole_model_memory(self.model, self.trained, step)
        return FleetMemory(None, own, own)

    def state(self) -> dict[str, Any]:
        """Return what, beside the adapters, must survive a crash between rounds."""
        return {"optimizer": optimizer_state(self.optimizer)} if self.learn.practice.state == "keep" else {}

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        if self.learn.practice.state == "keep":
            restore_optimizer(self.optimizer, state["optimizer"])
