"""Tiny models whose trunks are in memory, in files or over ranks, and a step through one of them."""

from __future__ import annotations

from dataclasses import replace

import torch

from sflam.learn.world.world import ALONE
from sflam.model.adapters import attach
from sflam.model.backbone import load, quiet
from sflam.model.lora import Rows
from sflam.model.settings import ModelSettings
from sflam.model.split import Arrival, split
from sflam.run.trunk_weights import install, left_in_files
from tests.tiny import batch, tiny

CPU = torch.device("cpu")
CUT = 1
MEMORY = ModelSettings(rank=2, dtype="float64")
FILE = replace(MEMORY, trunk_weights="file")


def saved(kind, folder, dtype=torch.float64, **options):
    """A tiny model on disk, and what ``load`` needs to read it again."""
    with quiet():
        tiny(kind, dtype=torch.float64).model.to(dtype).save_pretrained(folder, **options)
    task = "causal-lm" if kind.endswith("-lm") else None
    return {"name": str(folder), "task": task, "dtype": "float64"}


def opened(how, settings, world=ALONE):
    """The model with its trunk where ``settings`` have it."""
    left = left_in_files(settings, CUT, CPU)
    backbone = load(**how, left=left)
    return install(backbone, left, settings, world) if left else backbone


def halves_of(backbone):
    """Both halves of a model for two devices, with adapters that are not zero."""
    model = attach(backbone, MEMORY, seed=0)
    device, server = split(backbone, model, [CUT, CUT])
    with torch.no_grad():
        for stack in (device.stack, server.stack):
            stack.values.normal_(generator=torch.Generator().manual_seed(3))
    return device, server


def trained(halves, kind, *, checkpointing=False, rows=5):
    """Logits, and all gradients, of one step of two devices through both halves."""
    device, server = halves
    server.checkpointing = checkpointing
    own = batch(kind, rows=rows)
    layout = Rows.of([0, 1], [2, rows - 2])
    hidden = device(own["inputs"], own["lengths"], CUT, layout)
    leaf = hidden.detach().requires_grad_()
    out = server([Arrival(CUT, leaf, layout)], own["lengths"])
    server.stack.begin([0, 1])
    (gradient,) = server.stack.backward(out.square().sum(), None, [leaf])
    return {"out": out.detach(), "gradient": gradient, "adapters": server.stack.grads.clone()}
