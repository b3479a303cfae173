"""The memory of one real step of a device half: ``python -m tests.cost.one_step JSON`` prints a line per case."""

from __future__ import annotations

import gc
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
import transformers

from sflam.codec.bodies import encode
from sflam.codec.guard import guard_of
from sflam.cost.memory import device_memory
from sflam.learn.device import Devices
from sflam.learn.examples import Minibatch
from sflam.learn.exchange import Exchange, Position
from sflam.learn.fit import built_step
from sflam.learn.settings import LearnSettings
from sflam.model.adapters import attach
from sflam.model.backbone import wrap
from sflam.model.settings import ModelSettings
from sflam.model.split import split
from sflam.privacy.settings import PrivacySettings


def peak():
    """Return this process's VmHWM in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


class Half:
    """A device half of random weights, and its steps."""

    def __init__(self, case):
        torch.manual_seed(0)
        config = getattr(transformers, case["config"])(**case["options"])
        settings = ModelSettings(**case.get("model", {}))
        dtype = getattr(torch, settings.dtype)
        model = getattr(transformers, case["architecture"])(config).to(dtype)
        self.config, self.tokens = config, case.get("tokens", 0)
        backbone = wrap(model, name="random", fresh=tuple(case.get("fresh", ("classifier",))))
        adapted = attach(backbone, settings)
        learn = LearnSettings(batch=case["rows"], device="cpu", **case.get("learn", {}))
        device, _ = split(
            backbone, adapted, [settings.cut], frozen_half=learn.practice.device_half == "frozen"
        )
        device.checkpointing = learn.checkpointing
        self.devices = Devices(device, (settings.cut,), learn)
        image = config.image_size // config.patch_size if not self.tokens else 0
        step = built_step(backbone, self.tokens or image**2 + 1, learn)
        guard = guard_of(PrivacySettings(**case.get("privacy", {})), 0)
        self.devices.protect(guard)
        apart = self.devices.clipping is not None
        self.step_of = replace(step, training=replace(step.training, samples_apart=apart))

    def batch(self, rows):
        labels = torch.zeros(rows, dtype=torch.long)
        if not self.tokens:
            size = (rows, self.config.num_channels, self.config.image_size, self.config.image_size)
            return Minibatch({"pixel_values": torch.randn(size)}, None, labels)
        lengths = torch.full((rows,), self.tokens)
        lengths[-1] -= 1  # a row that is padded, as texts are
        ids = torch.randint(1, self.config.vocab_size, (rows, self.tokens))
        return Minibatch({"input_ids": ids}, lengths, labels)

    def forward(self, rows):
        one = self.batch(rows)
        hidden = self.devices.forward({0: one}, {0: 1})[0]
        encode(Exchange("uniform", 0, {0: (8, 8)}).step_message(Position(0, 0, 0), hidden, one))
        return hidden

    def step(self, rows):
        hidden = self.forward(rows)
        self.devices.backward({0: torch.randn_like(hidden)}, {0: self.batch(rows)})

    def added(self, rows):
        """Return by how much a step of ``rows`` raises VmHWM, after one of a single row that loads what is lazy."""
        self.step(1)
        self.devices.optimizer.state.clear()
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
        without = peak()
        self.step(rows)
        return peak() - without


def measured(case):
    """Return bytes of a case: what a step adds to the peak, and activations and training by the formula."""
    half = Half(case)
    need = device_memory(half.step_of, half.devices.cuts[0])
    return half.added(case["rows"]), need.activations, need.trained


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in json.loads(sys.argv[1]):
        print(json.dumps(measured(each)), flush=True)
