"""The oracle of what reviewers ask for: device by device, each rule and optimiser as its paper writes it down."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from sflam.data.batches import round_batches
from sflam.model.adapters import state_of
from tests.learn.plain_loop import PlainLoop


class PlainRivals(PlainLoop):
    """A plain loop with one of the rules of ``learn.local``, an optimiser of the server, or FlexLoRA.

    With ``whole`` a device's gradient is clipped as one, as where its model is not cut. Every device takes part.
    """

    def __init__(self, *args, whole=False, **options):
        super().__init__(*args, **options)
        self.whole = whole
        zeros = {name: torch.zeros_like(tensor) for name, tensor in self.state.items()}
        self.common, self.own = dict(zeros), [dict(zeros) for _ in self.parts]
        self.first = dict(zeros)
        self.second = {n: torch.full_like(t, self.learn.server_epsilon**2) for n, t in zeros.items()}

    def sides(self, k):
        device, server = super().sides(k)
        return ([*device, *server], []) if self.whole else (device, server)

    def named(self, k):
        """Return what device k trains, by the names of its state."""
        return {
            name.replace(".modules_to_save", "").replace(".default", ""): parameter
            for name, parameter in self.models[k].named_parameters()
            if parameter.requires_grad
        }

    def loss(self, k, arguments):
        if self.learn.practice.local != "fedlc":
            return super().loss(k, arguments)
        logits = self.models[k](**arguments).logits
        held = self.examples.dataset.labels[self.parts[k]]
        for label in range(logits.shape[1]):
            rows = int((held == label).sum())
            logits[:, label] -= self.learn.logit_tau * rows**-0.25 if rows else torch.inf
        return F.cross_entropy(logits, arguments["labels"])

    def amend(self, k):
        for name, parameter in self.named(k).items():
            if self.learn.practice.local == "fedprox":
                parameter.grad += self.learn.prox * (parameter.detach() - self.state[name])
            if self.learn.practice.local == "scaffold":
                parameter.grad += self.common[name] - self.own[k][name]

    def merged(self, states, samples):
        x, found = self.state, super().merged(states, samples)
        if self.learn.practice.local == "scaffold":
            self.control(x, states, samples)
        if self.learn.practice.aggregation == "svd":
            self.redistribute(states, samples, found)
        moved, learn = {}, self.learn
        for name, average in found.items():
            delta, m, v = average - x[name], self.first[name], self.second[name]
            beta, beta2, eta = learn.server_momentum, learn.server_beta2, learn.server_lr
            match learn.practice.server_optimizer:
                case "momentum":
                    self.first[name] = beta * m + delta
                    moved[name] = x[name] + eta * self.first[name]
                case "adam" | "yogi" as kind:
                    self.first[name] = beta * m + (1 - beta) * delta
                    if kind == "adam":
                        self.second[name] = beta2 * v + (1 - beta2) * delta**2
                    else:
                        self.second[name] = v - (1 - beta2) * delta**2 * torch.sign(v - delta**2)
                    moved[name] = x[name] + eta * self.first[name] / (
                        self.second[name] ** 0.5 + learn.server_epsilon
                    )
                case _:
                    moved[name] = average
        return moved

    def control(self, x, states, samples):
        """Option II, as the paper has it: from the way a device went. For plain gradient steps without clipping."""
        total, common = sum(samples), dict(self.common)
        for k, (y, n) in enumerate(zip(states, samples, strict=True)):
            steps = len(
                round_batches(
                    self.parts[k],
                    self.learn.batch,
                    seed=0,
                    round=0,
                    device=k,
                    steps=self.learn.local_steps,
                    epochs=self.learn.local_epochs,
                )
            )
            for name in x:
                new = (
                    self.own[k][name]
                    - self.common[name]
                    + (x[name] - y[name]) / (steps * self.learn.practice.lr)
                )
                common[name] = common[name] + n / total * (new - self.own[k][name])
                self.own[k][name] = new
        self.common = common

    def redistribute(self, states, samples, found):
        """Build the mean product, and take its largest directions."""
        total = sum(samples)
        for name in [name for name in found if name.endswith("lora_A.weight")]:
            other = name.replace("lora_A", "lora_B")
            mean = sum(n / total * s[other] @ s[name] for s, n in zip(states, samples, strict=True))
            u, s, vt = torch.linalg.svd(mean)
            rank = len(found[name])
            found[name], found[other] = vt[:rank], u[:, :rank] * s[:rank]
            for row in range(rank):
                if vt[row][vt[row].abs().argmax()] < 0:
                    found[name][row] *= -1
                    found[other][:, row] *= -1

    def trained(self, rounds):
        """Return the global adapters after so many rounds."""
        for number in range(rounds):
            self.round(number)
        assert self.state.keys() == state_of(self.models[0]).keys()
        return self.state
