"""Will it fit: the memory of a device, of the server and of this process, from plain formulas before a run starts.

Counted on the built model: frozen weights; trained numbers with their gradient and optimiser state; activations kept
for the backward. A block keeps, for each token, the outputs of its linear layers (queries, keys, values, the hidden
layer), their low-rank products, twice the width of each norm (what enters it, and what the next layers are given),
the attention's result and the input of its widest layer; an activation computed in steps (GPT-2's) adds three such
inputs, unfused attention its T x T weights. Against what autograd really saves this is within a factor of 1.5 either
way for every known family. The library's own memory (about 0.5 GB of code) is not counted.

B rows of a batch, T tokens, d hidden size.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from sflam.learn.central import Central
from sflam.learn.federated import Federated
from sflam.learn.fleet import Fleet
from sflam.learn.server import Trunk
from sflam.learn.settings import LearnSettings
from sflam.learn.split_fleet import LocalFleet
from sflam.model.adapters import state_of
from sflam.model.backbone import Backbone
from sflam.model.block_stubs import Reached, split_arguments
from sflam.model.families import CAUSAL, blocks_of
from sflam.model.lora import StackedLinear, StackedLoRA
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


STEPWISE = {"NewGELUActivation", "FastGELUActivation", "QuickGELUActivation", "AccurateGELUActivation"}
"""Activations that transformers computes in several operations, each of which keeps its input."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one machine.

    Attributes:
        weights: frozen weights.
        trained: what is trained, with gradients and optimiser state.
        activations: what a step keeps for its backward.
    """

    weights: int
    trained: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.trained + self.activations

    def __str__(self) -> str:
        parts = (self.weights, self.trained, self.activations)
        weights, trained, kept = map(human_bytes, parts)
        return f"{human_bytes(self.total)} (weights {weights}, training {trained}, activations {kept})"


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
        said = [
            f"memory, estimated: {each}{self.server} on the server, {human_bytes(self.process.total)} here{free}"
        ]
        if self.free is not None and self.process.total > self.free:
            said.append(
                f"it may not fit: this run needs {human_bytes(self.process.total)} here, but {human_bytes(self.free)} "
                "are free; set learn.checkpointing = true, or lower learn.batch, fleet.selected or fleet.devices"
            )
        return said


def fit(
    fleet: Fleet, backbone: Backbone, sample: dict[str, Tensor], tokens: int, learn: LearnSettings
) -> Fit:
    """Return the memory a run needs.

    Args:
        fleet: the built fleet.
        backbone: its model.
        sample: the inputs of one row, which tell T of an image and d.
        tokens: the longest row of a text in T; 0 for images.
        learn: batch size, optimiser, checkpointing.
    """
    seen, width = token_shape(backbone, sample)
    step = _Step(backbone, learn, tokens or seen, width)
    frozen = _bytes(p for p in backbone.model.parameters() if not p.requires_grad)
    free = free_bytes(backbone.model.device)
    if not isinstance(fleet, LocalFleet):
        assert isinstance(fleet, Central | Federated)
        trained = sum(tensor.numel() for tensor in state_of(fleet.model).values())
        blocks = [step.block(block) for block in blocks_of(backbone.model, backbone.family)]
        own = Memory(frozen, step.training(trained), step.kept(blocks, learn.batch) + step.head(learn.batch))
        if isinstance(fleet, Central):
            return Fit(None, own, own, free)
        copies = len(fleet.parts) * trained * max(4, step.size)
        return Fit(own, Memory(0, 0, 0), replace(own, trained=own.trained + copies), free)
    device, cuts = fleet.devices.segment, fleet.devices.cuts
    active = sorted(cuts, reverse=True)[: fleet.settings.selected or len(cuts)]
    ahead = [step.block(device.blocks[str(index)]) for index in device.held]
    at_home = step.head(learn.batch) if device.at_home else 0
    largest = Memory(
        _weights(device),
        step.training(device.stack.size(device.names(max(cuts)))),
        step.kept(ahead, learn.batch) + at_home,
    )
    served: dict[int, list[int]] = {}
    for cut, server in zip(cuts, fleet.servers.server_of, strict=True):
        served.setdefault(server, []).append(cut)
    serving = {
        server: _serving(fleet.servers.trunks[server], own, step, fleet) for server, own in served.items()
    }
    ours = sum(step.kept(ahead[:cut], learn.batch) for cut in active) + at_home * len(active)
    everything = Memory(
        _bytes(backbone.model.parameters()),
        sum(one.trained for one in serving.values()) + step.training(device.stack.values.numel()),
        sum(one.activations for one in serving.values()) + ours,
    )
    together = serving.pop(ALL_LOCAL, None)
    if together is not None:
        largest = max(largest, _alone(fleet, together), key=lambda one: one.total)
    nothing = Memory(0, 0, 0)
    return Fit(largest, max(serving.values(), key=lambda one: one.total, default=nothing), everything, free)


def _alone(fleet: LocalFleet, together: Memory) -> Memory:
    """Return what a device needs that trains the whole model, of what all of those do ``together``."""
    device = fleet.devices.segment
    count = fleet.servers.server_of.count(ALL_LOCAL)
    embedding = 0 if device.places else _bytes(device.parts.parameters())
    return Memory(
        together.weights + embedding,
        together.trained // count,
        together.activations // min(count, fleet.settings.selected or count),
    )


def _serving(trunk: Trunk, cuts: Sequence[int], step: _Step, fleet: LocalFleet) -> Memory:
    """Return what one server needs for the devices with these cuts, as many of them as a round may draw."""
    segment, depth = trunk.segment, step.backbone.depth
    behind = {index: step.block(segment.blocks[str(index)]) for index in segment.held}
    head = step.head(step.learn.batch) if segment.has_head else 0
    active = sorted(cuts)[: fleet.settings.selected or len(cuts)]
    per_device = [
        step.kept([behind[index] for index in range(cut, depth)], step.learn.batch) + head for cut in active
    ]
    served = max(per_device) if trunk.one_by_one else sum(per_device)
    return Memory(_weights(segment), step.training(segment.stack.values.numel()), served)


@dataclass(frozen=True)
class _Step:
    """What one step of this run keeps.

    Attributes:
        backbone: the model.
        learn: how it is trained.
        tokens: T of a row.
        width: d.
    """

    backbone: Backbone
    learn: LearnSettings
    tokens: int
    width: int

    @property
    def size(self) -> int:
        """Bytes of one number of an activation."""
        return int(self.backbone.model.dtype.itemsize)

    def training(self, numbers: int) -> int:
        """Return the bytes of trained numbers, their gradients, and the optimiser's own."""
        momenta = 2 if self.learn.optimizer != "sgd" else int(self.learn.momentum > 0)
        return numbers * (2 + momenta) * max(4, self.size)

    def block(self, block: nn.Module) -> int:
        """Return the bytes one row keeps in a block."""
        config = self.backbone.model.config
        fused = getattr(config, "_attn_implementation", "eager") != "eager"
        heads = 0 if fused else int(getattr(config, "num_attention_heads", 0))
        return self.size * (self.tokens * numbers_per_token(block, self.width) + 2 * heads * self.tokens**2)

    def kept(self, blocks: Sequence[int], rows: int) -> int:
        """Return the bytes ``rows`` keep in blocks of the given bytes a row, checkpointed or not."""
        if self.learn.checkpointing and blocks:
            inputs = len(blocks) * self.tokens * self.width * self.size
            return rows * (inputs + max(blocks))
        return rows * sum(blocks)

    def head(self, rows: int) -> int:
        """Return the bytes of a language model's logits, their logarithms and their gradient; else next to nothing."""
        if self.backbone.task != CAUSAL:
            return rows * self.width * 4 * self.size
        return rows * self.tokens * int(self.backbone.model.config.vocab_size) * 3 * 4


def numbers_per_token(block: nn.Module, width: int) -> int:
    """Return how many numbers a block keeps for each token of width d; see the head of this file."""
    total = widest = 0
    steps = any(type(module).__name__ in STEPWISE for module in block.modules())
    counted: set[nn.Module] = set()
    for module in block.modules():
        if module in counted:
            continue
        shape = _shape(module)
        if shape is not None:
            counted |= set(module.modules())
            inputs, outputs, rank = shape
            total += outputs + rank
            widest = max(widest, inputs)
        elif "norm" in type(module).__name__.lower():
            total += 2 * width
    return total + width + widest * (4 if steps else 1)


def _shape(module: nn.Module) -> tuple[int, int, int] | None:
    """Return inputs, outputs and rank of a linear layer, whatever trains it; None of any other module."""
    if isinstance(module, StackedLoRA):
        return module.a.shape[-1], module.b.shape[1], module.b.shape[2]
    if isinstance(module, StackedLinear):
        return module.weight.shape[2], module.weight.shape[1], 0
    if hasattr(module, "lora_A"):
        layer: Any = module
        found = _shape(layer.get_base_layer())
        rank = layer.lora_A["default"].weight.shape[0]
        return None if found is None else (found[0], found[1], rank)
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features, 0
    if isinstance(module, Conv1D):
        return module.weight.shape[0], module.weight.shape[1], 0
    return None


def token_shape(backbone: Backbone, sample: dict[str, Tensor]) -> tuple[int, int]:
    """Return T and d of what the first block is given for ``sample``."""
    block = blocks_of(backbone.model, backbone.family)[0]

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise Reached(split_arguments(inspect.signature(block.forward), args, kwargs)[0])

    handle = block.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        with torch.no_grad():
            backbone.model(**sample)
    except Reached as end:
        return end.hidden.shape[1], end.hidden.shape[2]
    finally:
        handle.remove()
    raise AssertionError("a model runs its first block")


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
