"""Devices that hold the whole model: federated fine-tuning without a cut, and every device for itself.

for every round:
    1. the devices of the round download what is trained (``local``: only ever their own)
    2. each trains the whole model on its own samples, plain peft
    3. what they trained is averaged, weighted by samples (``local``: never)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from sflam.cost.memory import FleetMemory, Memory
from sflam.cost.training import Step
from sflam.learn.averaging import Averaging
from sflam.learn.counted_memory import whole_model_memory
from sflam.learn.device_ranks import DeviceRanks
from sflam.learn.drawing import drawn
from sflam.learn.evaluate import Score, mean_score
from sflam.learn.kept_memory import with_personal
from sflam.learn.local.registry import local_rule
from sflam.learn.optimizers import optimizer_state, restore_optimizer
from sflam.learn.personal import PersonalParts, head_of
from sflam.learn.selection import chances_of
from sflam.learn.settings.schedule import Moment
from sflam.learn.steps import Average, Steps
from sflam.learn.whole_model import WholeModel
from sflam.model.adapters import State, adapted_layers, load_state, state_of
from sflam.model.lower_rank import A_ENDS
from sflam.seeds import derive


class Federated(WholeModel):
    """``fedlora`` and ``fedavg`` behind the seam of a fleet; one device trains after another here."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.start = state_of(self.model)
        self._begun: State = {}
        self.own: dict[int, State] = {}
        self.ranks = DeviceRanks(self.settings.ranks)
        names = head_of(self.start) if self.learn.personal == "head" else []
        self.personal = PersonalParts(self.learn.personal, names, self.start)
        self._momenta: dict[int, dict[str, Any]] = {}
        self.averaging = Averaging(self.learn, "local", factors=bool(adapted_layers(self.model)))
        freeze = (
            self.learn.practice.aggregation == "freeze-a"
        )  # what is not trained is known to all from the start
        self._names = self.personal.shared(n for n in self.start if not (freeze and n.endswith(A_ENDS)))
        parts = dict(enumerate(self.parts))
        self.follow(local_rule(self.learn, "local", self.examples, parts), self._names)

    def download(self, round: int, devices: Sequence[int], state: State) -> int:
        """Start the devices from the global adapters; return the bytes sent."""
        self._begun, sent = state, 0
        self.rule.begin(state)
        for device in devices:
            received, size = self.ranks.transfer(round, device, 0, state, self._names)
            self.own[device] = self.ranks.truncated(device, state | received | self.personal.of(device))
            sent += size
        return sent + self._beside(round, {device: self.rule.down(device) for device in devices})

    def local_steps(self, round: int, devices: Sequence[int]) -> Steps:
        """Train one device after another, each with its own optimiser state."""
        done = Steps(samples=dict.fromkeys(devices, 0))
        self.model.train()
        for device in devices:
            load_state(self.model, self.own.get(device, self.start))
            self.optimizer.state.clear()
            if self.learn.practice.state == "keep" and device in self._momenta:
                restore_optimizer(self.optimizer, self._momenta[device])
            batches = drawn(self.learn, self.examples, self.parts[device], self.seed, round, device)
            for step, indices in enumerate(batches):
                batch = self.examples.take(indices)
                self.pace(Moment(round, step, len(batches)))
                seed = derive(self.seed, "dropout", round, step, device)
                done.learned(device, self.step(batch, seed, device), len(batch))
            done.device_steps += len(batches)
            self.own[device] = state_of(self.model)
            if self.learn.practice.state == "keep":
                self._momenta[device] = optimizer_state(self.optimizer)
        return done

    def average(self, round: int, devices: Sequence[int], steps: Steps) -> Average:
        """Return the sample-weighted average."""
        states, sent = {}, 0
        for device in devices:
            own = self.own[device]
            self.personal.keep(device, own)
            received, size = self.ranks.transfer(round, device, steps.samples[device], own, self._names)
            states[device] = {name: received[name] for name in self._names}
            sent += size
        self.own = {}
        sent += self._beside(round, self.rule.end(devices))
        held = {device: len(part) for device, part in enumerate(self.parts)}
        self.ranks.keep_untouched(states, self._begun)
        found = self.averaging(self._begun, states, steps.samples, held, chances_of(self.settings, held))
        return Average(found.state, found.error, sent, moved=found.moved)

    def _beside(self, round: int, sent: Mapping[int, State]) -> int:
        """Return the bytes of what devices send or receive beside their adapters."""
        bodies = ((device, state, [n for n in self._names if n in state]) for device, state in sent.items())
        return sum(
            self.ranks.transfer(round, device, 0, state, names)[1] for device, state, names in bodies if names
        )

    def score(self, state: State, evaluate: Callable[[State], Score]) -> Score:
        """Return how good the global adapters are, or the mean over the models that devices make of them."""
        return self.personal.score(len(self.parts), state, evaluate)

    def own_parts(self) -> Mapping[int, State]:
        """Return the personal parts of each device that has trained."""
        return self.personal.own

    def memory(self, step: Step) -> FleetMemory:
        """Return what its machines need for a training step; the states of all devices are in this process."""
        own = whole_model_memory(self.model, self.trained, step)
        states = len(self.parts) * sum(tensor.nbytes for tensor in self.trained)
        need = FleetMemory(own, Memory(), replace(own, trained=own.trained + states))
        return with_personal(need, self.personal, len(self.parts), served=False)

    def state(self) -> dict[str, Any]:
        """Return what, beside the global adapters, must survive a crash between rounds."""
        kept: dict[str, Any] = self.averaging.state() | self.personal.state()
        if rule := self.rule.state():
            kept["local"] = rule
        return kept | ({"momenta": dict(self._momenta)} if self.learn.practice.state == "keep" else {})

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned, on a freshly built fleet."""
        self.averaging.restore(state)
        if "local" in state:
            self.rule.restore(state["local"])
        self._momenta = dict(state.get("momenta", {}))
        self.personal.restore(state)


class Local(Federated):
    """``local``: every device trains its own model, and nothing is sent or averaged."""

    def download(self, round: int, devices: Sequence[int], state: State) -> int:
        """Start every device from its own adapters."""
        return 0

    def average(self, round: int, devices: Sequence[int], steps: Steps) -> Average:
        """Return what the device with most samples has."""
        most = max(range(len(self.parts)), key=lambda device: len(self.parts[device]))
        return Average(self.own.get(most, self.start), None)

    def score(self, state: State, evaluate: Callable[[State], Score]) -> Score:
        """Return the mean over all devices of what each one's own model scores."""
        return mean_score([evaluate(self.own.get(device, self.start)) for device in range(len(self.parts))])

    def state(self) -> dict[str, Any]:
        """Return what must survive a crash between rounds: every device's own adapters, too."""
        return {"own": dict(self.own)} | super().state()

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned, on a freshly built fleet."""
        for device, own in state.get("own", {}).items():
            self.own[device] = {name: own[name].to(tensor) for name, tensor in self.start.items()}
        super().restore(state)
