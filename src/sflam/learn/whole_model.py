"""Training the unmodified whole model, by plain peft: ``central`` once, devices that do not split one each.

B rows of a mini-batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch.utils.checkpoint import checkpoint

from sflam.learn.examples import Examples, Minibatch
from sflam.learn.fleet import Fleet
from sflam.learn.local.rule import LocalRule
from sflam.learn.optimizers import optimizer, set_rate
from sflam.learn.precision import arithmetic, draws_dropout, reseeded
from sflam.learn.selection import select_devices
from sflam.learn.settings import FleetSettings, LearnSettings
from sflam.learn.settings.schedule import Moment
from sflam.model.adapters import parameters_of
from sflam.model.dummy_inputs import with_mask
from sflam.model.loss import group_losses
from sflam.plan import Placement


class WholeModel(Fleet):
    """The whole model and its one optimiser.

    Args:
        model: the adapted whole model; it is trained in place.
        examples: the training samples.
        parts: the samples of each device, int64 [n_k].
        settings: how many devices take part in a round.
        learn: how a round is run.
        seed: seed of the run.
        blocks: the model's blocks, which checkpointing computes again in the backward.
    """

    def __init__(
        self,
        model: PeftModel,
        examples: Examples,
        parts: Sequence[NDArray[Any]],
        *,
        settings: FleetSettings,
        learn: LearnSettings,
        seed: int,
        blocks: Iterable[Any] = (),
    ) -> None:
        self.model, self.examples, self.parts = model, examples, parts
        self.settings, self.learn, self.seed = settings, learn, seed
        if learn.practice.aggregation == "freeze-a":
            for name, parameter in model.named_parameters():
                if ".lora_A." in name:
                    parameter.requires_grad_(False)
        self.trained = [p for p in model.parameters() if p.requires_grad]
        if learn.checkpointing:
            for block in blocks:
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        self.random = draws_dropout(model)
        self.optimizer = optimizer(learn, self.trained)
        self.rule = LocalRule(learn, {})

    def follow(self, rule: LocalRule, names: Iterable[str]) -> None:
        """Let a rule for the devices' own learning act on the named tensors."""
        self.rule, found = rule, parameters_of(self.model) if rule.acts else {}
        self._named = {name: found[name] for name in names if name in found}

    def select(self, round: int) -> tuple[int, ...]:
        """Return the devices of a round."""
        samples = {device: len(part) for device, part in enumerate(self.parts)}
        return select_devices(self.settings, self.seed, round, samples)

    def place(self, placements: Sequence[Placement]) -> None:
        """Follow a plan: whole models have no cut, and nothing of them is quantized."""

    def pace(self, moment: Moment) -> None:
        """Set the rate of the step that comes."""
        set_rate(self.optimizer, self.learn, moment)

    def step(self, batch: Minibatch, seed: int, device: int | None = None) -> float:
        """Take one optimiser step; return the mean loss.

        Args:
            batch: the mini-batch.
            seed: that of the dropout.
            device: whose step it is; None where there are no devices.
        """
        with arithmetic(self.model), reseeded(seed if self.random else None):
            loss = self._loss(batch, device)
        self.optimizer.zero_grad()
        loss.backward()
        if device is not None and self.rule.acts:
            gradients = {n: p.grad for n, p in self._named.items() if p.grad is not None}
            self.rule.amend(device, {name: self._named[name].detach() for name in gradients}, gradients)
        if self.learn.clip:
            torch.nn.utils.clip_grad_norm_(self.trained, self.learn.clip)
        self.optimizer.step()
        return float(loss.detach())

    def _loss(self, batch: Minibatch, device: int | None) -> Any:
        """Return the mean loss of a mini-batch: the model's own, or that of ``learn.loss``, or of calibrated logits."""
        inputs = with_mask(batch.inputs, batch.lengths)
        calibrates = device is not None and self.rule.calibrates
        if self.learn.loss == "cross-entropy" and not calibrates:
            return self.model(**inputs, labels=batch.labels).loss
        logits = self.model(**inputs).logits
        if device is not None:
            logits = self.rule.calibrated(logits, [device], [len(batch)])
        return group_losses(self.examples.task, logits, batch.labels, (len(batch),), self.learn).squeeze(0)
