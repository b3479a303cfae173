"""The memory a run needs on a device, on the server and in this process, estimated before it starts.

A fleet counts its weights and trained numbers (``learn.counted_memory``); activations are those of ``cost.memory``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from sflam.cost.memory import FleetMemory
from sflam.cost.training import LeanDevice, Step, Training
from sflam.learn.fleet import Fleet
from sflam.learn.settings import LearnSettings
from sflam.model.adapters import adapted_blocks
from sflam.model.backbone import Backbone
from sflam.model.built import shape_of, token_shape
from sflam.model.families import blocks_of
from sflam.model.tuned import as_number
from sflam.units import human_bytes

MEMINFO = Path("/proc/meminfo")
"""Where Linux reports the available memory, in kB."""

LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)
"""Where a container reports its limit and its use of memory, in bytes."""


@dataclass(frozen=True)
class Fit(FleetMemory):
    """The memory of a run, and what there is.

    Attributes:
        free: bytes free for this process; None where unknown.
    """

    free: int | None

    def notes(self) -> list[str]:
        """Return what a user should know before the run starts."""
        each = "" if self.device is None else f"{self.device} on a device, "
        free = "" if self.free is None else f" of {human_bytes(self.free)} free"
        notes = [
            f"memory, estimated: {each}{self.server} on the server, {human_bytes(self.process.total)} here{free}"
        ]
        if self.free is not None and self.process.total > self.free:
            notes.append(
                f"it may not fit: this run needs {human_bytes(self.process.total)} here, but {human_bytes(self.free)} "
                "are free; set learn.checkpointing = true, or lower learn.batch, fleet.selected or fleet.devices"
            )
        return notes


def fit(
    fleet: Fleet,
    backbone: Backbone,
    sample: dict[str, Tensor],
    tokens: int,
    learn: LearnSettings,
    lean: LeanDevice | None = None,
) -> Fit:
    """Return the memory a run needs.

    Args:
        fleet: the built fleet.
        backbone: its model.
        sample: the inputs of one row, which give T of an image.
        tokens: the longest row of a text in T; 0 for images.
        learn: batch size, optimiser, checkpointing.
        lean: of devices without torch.
    """
    step = built_step(backbone, tokens or token_shape(backbone, sample)[0], learn, lean=lean)
    need = fleet.memory(step)
    server, process = (
        replace(own, weights=max(0, own.weights - backbone.elsewhere)) for own in (need.server, need.process)
    )
    return Fit(need.device, server, process, free_bytes(backbone.model.device))


def built_step(
    backbone: Backbone,
    tokens: int,
    learn: LearnSettings,
    *,
    home: bool = False,
    lean: LeanDevice | None = None,
) -> Step:
    """Return the training step of a model that adapters are attached to, or none where every weight is trained.

    Args:
        backbone: the model.
        tokens: T of a row.
        learn: how it is trained.
        home: whether head and loss are on the device.
        lean: of devices without torch.
    """
    shape, config = shape_of(backbone), backbone.model.config
    tuned = adapted_blocks(backbone)
    block = blocks_of(backbone.model, backbone.family)[tuned.start]
    layers: dict[str, Any] = {n: layer for n, layer in block.named_modules() if isinstance(layer, LoraLayer)}
    first = next(iter(layers.values()), None)
    training = Training(
        batch=learn.batch,
        tokens=tokens,
        rank=first.r["default"] if first else 0,
        tuned=as_number(tuned, backbone.depth),
        trained_head=bool(backbone.fresh),
        dtype=str(backbone.model.dtype).removeprefix("torch."),
        optimizer_slots=learn.optimizer_slots,
        fused_attention=getattr(config, "_attn_implementation", "eager") != "eager",
        full=first is None,
        frozen_a=learn.practice.aggregation == "freeze-a",
        frozen_half=learn.practice.device_half == "frozen",
        lora_dropout=getattr(first and first.lora_dropout["default"], "p", 0.0) > 0,
        checkpointing=learn.checkpointing,
        memory_gb=learn.memory_gb,
        labels_home=home,
        lean=lean,
    )
    adapted = tuple(linear for linear in shape.linears if linear.name in layers or not layers)
    return Step(shape, training, tokens, adapted)


def free_bytes(device: torch.device) -> int | None:
    """Return how much memory is free on ``device``, or within this container; None where unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = []
    try:
        lines = MEMINFO.read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except OSError:
        return None
    for limit, used in LIMITS:
        try:
            found.append(int(limit.read_text()) - int(used.read_text()))
        except (OSError, ValueError):  # another layout, or "max"
            continue
    return max(0, min(found)) if found else None
