"""The reference: the whole adapted model on all the data, as many samples a round as the fleet would use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch.utils.checkpoint import checkpoint

from sflam.data.batches import batches
from sflam.learn.examples import Examples
from sflam.learn.fleet import Average, Steps, select_devices
from sflam.learn.optimizers import optimizer, optimizer_state, restore_optimizer
from sflam.learn.precision import arithmetic, draws_dropout, reseeded
from sflam.learn.settings import FleetSettings, LearnSettings
from sflam.model.adapters import State, load_state, state_of
from sflam.model.probe import valid_tokens
from sflam.seeds import derive, generator


class Central:
    """Plain peft training of the unmodified model behind the same seam as a fleet; nothing crosses a network.

    Args:
        model: the adapted whole model; it is trained in place.
        examples: the training samples.
        parts: the samples each device would have had; a round pools those of its devices.
        settings: how many devices a round would have had.
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
        self.trained = [p for p in model.parameters() if p.requires_grad]
        if learn.aggregation == "freeze-a":
            for name, parameter in model.named_parameters():
                if ".lora_A." in name:
                    parameter.requires_grad_(False)
            self.trained = [p for p in model.parameters() if p.requires_grad]
        if learn.checkpointing:
            for block in blocks:
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        self.random = draws_dropout(model)
        self.optimizer = optimizer(learn, self.trained)

    def select(self, round: int) -> tuple[int, ...]:
        """Return the devices whose samples this round pools."""
        return select_devices(self.settings, self.seed, round)

    def download(self, round: int, devices: Sequence[int], state: State) -> int:
        """Begin a round from ``state``; nothing is sent."""
        load_state(self.model, state)
        if self.learn.state == "reset":
            self.optimizer.state.clear()
        return 0

    def local_steps(self, round: int, devices: Sequence[int]) -> Steps:
        """Train on the pooled samples of the devices."""
        done = Steps(samples=dict.fromkeys(devices, 0))
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
            one = self.examples.take(indices)
            arguments = dict(one.inputs, labels=one.labels)
            if one.lengths is not None:
                arguments["attention_mask"] = valid_tokens(one.lengths, one.inputs["input_ids"].shape[1])
            seed = derive(self.seed, "dropout", round, step) if self.random else None
            with arithmetic(self.model), reseeded(seed):
                loss = self.model(**arguments).loss
            self.optimizer.zero_grad()
            loss.backward()
            if self.learn.clip:
                torch.nn.utils.clip_grad_norm_(self.trained, self.learn.clip)
            self.optimizer.step()
            done.losses += float(loss.detach()) * len(one)
            done.samples[devices[0]] += len(one)
        done.device_steps = len(drawn)
        return done

    def average(self, round: int, devices: Sequence[int], steps: Steps) -> Average:
        """Return what was trained: there is nothing to average."""
        return Average(state_of(self.model), None)

    def state(self) -> dict[str, Any]:
        """Return what, beside the adapters, must survive a crash between rounds."""
        return {"optimizer": optimizer_state(self.optimizer)} if self.learn.state == "keep" else {}

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        if self.learn.state == "keep":
            restore_optimizer(self.optimizer, state["optimizer"])
