"""The oracle of buffered rounds with one trunk: from who was in which group, in the plainest way there is.

Every device has a deep copy of the whole peft model, one backward each; gradients of the trunk are added by hand, and a
version is the formula of FedBuff over what devices have below the cut. Nothing of segments, stacks or the wire is used.
"""

from __future__ import annotations

import math

import torch

from sflam.data.batches import round_batches
from sflam.model.adapters import load_state, state_of
from tests.learn.plain_loop import PlainLoop


class PlainTrunk(PlainLoop):
    """A trunk that takes ``learn.server_update`` steps, ``batched`` or ``sequential``; devices make equally many."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.versions, self.begun = [self.state], {}
        self.trunk_names = self.names(0)
        self.trunk = self.optimizer(self.sides(0)[1])
        self.own = [None] * len(self.parts)
        self.place = [(0, 0)] * len(self.parts)  # number of its cycle, step
        self.ends = {}

    def names(self, k):
        """Return the names in a state of what is above the cut of device k."""
        model, (_, above) = self.models[k], self.sides(k)
        before = state_of(model)
        with torch.no_grad():
            for one in above:
                one.add_(1.0)
            after = state_of(model)
            for one in above:
                one.sub_(1.0)
        return [name for name in before if not torch.equal(before[name], after[name])]

    def optimizer(self, parameters):
        return torch.optim.AdamW(parameters, lr=self.learn.practice.lr, weight_decay=self.learn.weight_decay)

    def trunk_state(self):
        return {
            name: value.clone()
            for name, value in state_of(self.models[0]).items()
            if name in self.trunk_names
        }

    def batches(self, k, number):
        options = {"steps": self.learn.local_steps, "epochs": self.learn.local_epochs}
        return list(
            round_batches(self.parts[k], self.learn.batch, seed=self.seed, round=number, device=k, **options)
        )

    def group(self, members):
        """Make the step of the devices that were there."""
        trunk, now = self.trunk_state(), {}
        for k in members:
            number, step = self.place[k]
            if step == 0:
                start = self.versions[self.begun[k, number]]
                load_state(self.models[k], {**state_of(self.models[k]), **start, **trunk})
                if self.own[k] is None or self.learn.practice.state == "reset":
                    self.own[k] = self.optimizer(self.sides(k)[0])
            now[k] = self.examples.take(self.batches(k, number)[step])
        one_by_one = self.learn.practice.server_update == "sequential"
        for together in [[k] for k in members] if one_by_one else [members]:
            self.learn_from({k: now[k] for k in together}, len(self.parts) if one_by_one else 1)
        for k in members:
            number, step = self.place[k]
            done = step + 1 == len(self.batches(k, number))
            if done:
                self.ends[k, number] = {
                    name: value.clone() for name, value in state_of(self.models[k]).items()
                }
            self.place[k] = (number + 1, 0) if done else (number, step + 1)

    def learn_from(self, now, times):
        """Take one optimiser step of the trunk, and one of every device in it."""
        trunk, total = self.trunk_state(), None
        for k, one in now.items():
            load_state(self.models[k], {**state_of(self.models[k]), **trunk})
            self.models[k].zero_grad()
            self.loss(k, dict(one.inputs, labels=one.labels)).backward()
            share = 1.0
            if self.learn.practice.weights == "samples":
                share = times * len(self.parts[k]) / sum(map(len, self.parts))
            above = [share * parameter.grad for parameter in self.sides(k)[1]]
            total = above if total is None else [a + b for a, b in zip(total, above, strict=True)]
        for k in now:
            torch.nn.utils.clip_grad_norm_(self.sides(k)[0], self.learn.clip)
            self.own[k].step()
        for parameter, gradient in zip(self.sides(0)[1], total, strict=True):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(self.sides(0)[1], self.learn.clip)
        self.trunk.step()

    def version(self, round, buffer):
        """Make the next version of what came."""
        now = self.versions[round]
        rows = [
            sum(map(len, self.batches(k, n))) for k, n in zip(buffer.devices, buffer.numbers, strict=True)
        ]
        found = {name: value.clone() for name, value in now.items()}
        for k, number, tau, own in zip(buffer.devices, buffer.numbers, buffer.staleness, rows, strict=True):
            for name, end in self.ends[k, number].items():
                if name not in self.trunk_names:
                    found[name] += (
                        own / sum(rows) * (end - self.versions[round - tau][name]) / math.sqrt(1 + tau)
                    )
        self.versions.append(found | self.trunk_state())

    def replay(self, buffers):
        """Return the versions of a run, from what its records have of each."""
        for round, buffer in enumerate(buffers):
            for k, number, tau in zip(buffer.devices, buffer.numbers, buffer.staleness, strict=True):
                self.begun[k, number] = round - tau
        for round, buffer in enumerate(buffers):
            for members in buffer.groups:
                self.group(members)
            self.version(round, buffer)
            if self.learn.practice.state == "reset":
                self.trunk = self.optimizer(self.sides(0)[1])
        return self.versions[1:]
