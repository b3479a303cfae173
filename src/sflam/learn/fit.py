"""Will it fit: the memory of a device, of the server and of this process, before a run starts.

Weights and trained numbers are counted on the built fleet; activations are those of ``sflam.cost.memory``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from sflam.cost.memory import Memory, activations, server_activations, training_bytes
from sflam.cost.training import Step, Training
from sflam.learn.central import Central
from sflam.learn.federated import Federated
from sflam.learn.fleet import Fleet
from sflam.learn.server import Trunk
from sflam.learn.settings import LearnSettings
from sflam.learn.split_fleet import LocalFleet
from sflam.model.backbone import Backbone
from sflam.model.built import shape_of, token_shape
from sflam.model.families import blocks_of
from sflam.model.segment import Segment
from sflam.plan import ALL_LOCAL
from sflam.units import human_bytes

MEMINFO = Path("/proc/meminfo")
"""Where Linux says how much memory is available, in kB."""

LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)
"""Where a container says how much it may use, and uses, in bytes."""


@dataclass(frozen=True)
class Fit:
    """The memory of a run, and what there is.

    Attributes:
        device: that of the device that needs most; None where nothing is split.
        server: that of the server that needs most.
        process: that of all of them simulated in this process.
        free: bytes free for this process; None where nobody says.
    """

    device: Memory | None
    server: Memory
    process: Memory
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
    fleet: Fleet, backbone: Backbone, sample: dict[str, Tensor], tokens: int, learn: LearnSettings
) -> Fit:
    """Return the memory a run needs.

    Args:
        fleet: the built fleet.
        backbone: its model.
        sample: the inputs of one row, which tell T of an image.
        tokens: the longest row of a text in T; 0 for images.
        learn: batch size, optimiser, checkpointing.
    """
    step = built_step(backbone, tokens or token_shape(backbone, sample)[0], learn)
    if isinstance(fleet, LocalFleet):
        device, server, process = _split(fleet, backbone, step)
    else:
        assert isinstance(fleet, Central | Federated)
        trained = sum(one.numel() for one in fleet.trained)
        # peft keeps the head it replaced, which no device needs.
        kept = [p for name, p in fleet.model.named_parameters() if ".original_module." not in name]
        frozen = _bytes(one for one in kept if not one.requires_grad)
        own = _whole(step, frozen, trained)
        device, server, process = None, own, own
        if isinstance(fleet, Federated):
            copies = len(fleet.parts) * trained * max(4, backbone.model.dtype.itemsize)
            device, server, process = own, Memory(), replace(own, trained=own.trained + copies)
    return Fit(device, server, process, free_bytes(backbone.model.device))


def built_step(backbone: Backbone, tokens: int, learn: LearnSettings, *, home: bool = False) -> Step:
    """Return the training step of a model that adapters are attached to, or none where every weight is trained.

    Args:
        backbone: the model.
        tokens: T of a row.
        learn: how it is trained.
        home: whether head and loss are on the device.
    """
    shape, config = shape_of(backbone), backbone.model.config
    block = blocks_of(backbone.model, backbone.family)[0]
    layers: dict[str, Any] = {name: one for name, one in block.named_modules() if isinstance(one, LoraLayer)}
    first = next(iter(layers.values()), None)
    training = Training(
        batch=learn.batch,
        tokens=tokens,
        rank=first.r["default"] if first else 0,
        trained_head=bool(backbone.fresh),
        dtype=str(backbone.model.dtype).removeprefix("torch."),
        optimizer_slots=learn.optimizer_slots,
        fused_attention=getattr(config, "_attn_implementation", "eager") != "eager",
        full=first is None,
        frozen_a=learn.aggregation == "freeze-a",
        lora_dropout=getattr(first and first.lora_dropout["default"], "p", 0.0) > 0,
        checkpointing=learn.checkpointing,
        labels_home=home,
    )
    adapted = tuple(one for one in shape.linears if one.name in layers or not layers)
    return Step(shape, training, tokens, adapted)


def _split(fleet: LocalFleet, backbone: Backbone, step: Step) -> tuple[Memory, Memory, Memory]:
    """Return what the device with most needs, the server with most, and all of them in one process."""
    device, cuts = fleet.devices.segment, fleet.devices.cuts
    home = device.at_home
    step = replace(step, training=replace(step.training, labels_home=home))
    active = sorted(cuts, reverse=True)[: fleet.settings.selected or len(cuts)]
    largest = Memory(
        _weights(device),
        training_bytes(step, device.stack.size(device.names(max(cuts)))),
        activations(step, max(cuts), head=home),
    )
    served: dict[int, list[int]] = {}
    for cut, server in zip(cuts, fleet.servers.server_of, strict=True):
        served.setdefault(server, []).append(cut)
    serving = {
        server: _serving(fleet.servers.trunks[server], own, step, fleet) for server, own in served.items()
    }
    everything = Memory(
        _bytes(backbone.model.parameters()),
        sum(one.trained for one in serving.values()) + training_bytes(step, device.stack.values.numel()),
        sum(one.activations for one in serving.values())
        + sum(activations(step, cut, head=home) for cut in active),
    )
    together = serving.pop(ALL_LOCAL, None)
    if together is not None:  # each of them needs what the whole model does
        home_trunk = fleet.servers.trunks[ALL_LOCAL].segment
        parts = [*home_trunk.parameters(), *device.parts.parameters()]  # some are on both sides
        frozen = 0 if device.places else _bytes({id(one): one for one in parts}.values())
        alone = _whole(step, frozen, home_trunk.stack.size())
        largest = max(largest, alone, key=lambda one: one.total)
    return largest, max(serving.values(), key=lambda one: one.total, default=Memory()), everything


def _serving(trunk: Trunk, cuts: Sequence[int], step: Step, fleet: LocalFleet) -> Memory:
    """Return what one server needs for the devices with these cuts, as many of them as a round may draw."""
    active = sorted(cuts)[: fleet.settings.selected or len(cuts)]
    return Memory(
        _weights(trunk.segment),
        training_bytes(step, trunk.segment.stack.values.numel()),
        server_activations(step, active, one_by_one=trunk.one_by_one),
    )


def _whole(step: Step, frozen: int, trained: int) -> Memory:
    """Return what a machine needs that trains the whole model, from its bytes of frozen weights and trained numbers."""
    return Memory(frozen, training_bytes(step, trained), activations(step, step.shape.blocks, head=True))


def free_bytes(device: torch.device) -> int | None:
    """Return how much memory is free on ``device``, or within this container; None where the system does not say."""
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


def _weights(segment: Segment) -> int:
    """Return the bytes of a segment's frozen weights."""
    return 0 if segment.places else _bytes(segment.parameters())


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
