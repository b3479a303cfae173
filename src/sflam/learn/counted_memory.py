"""What a built fleet needs: its weights and trained numbers, counted, and activations by ``sflam.cost.memory``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from sflam.cost.memory import (
    FleetMemory,
    Memory,
    activations,
    clipping_peak,
    device_memory,
    samples_bytes,
    server_activations,
    training_bytes,
    with_batch,
)
from sflam.cost.training import Step, with_tuned
from sflam.learn.device import Devices
from sflam.learn.edge_servers import Servers
from sflam.learn.grouping import count_groups
from sflam.learn.server import Trunk
from sflam.model.segment import Segment
from sflam.model.tuned import as_number
from sflam.plan import ALL_LOCAL


def split_memory(
    model: nn.Module, devices: Devices, servers: Servers, selected: int, step: Step, rows: int
) -> FleetMemory:
    """Return what a model needs that is cut between devices and servers.

    Args:
        model: whole.
        devices: their halves.
        servers: the others.
        selected: devices of a round; 0 for all.
        step: of the model; its batch is the rows of a device on average.
        rows: most rows of one device's step.
    """
    device, cuts = devices.segment, devices.cuts
    home = device.has_head
    apart = devices.clipping is not None
    share = devices.dropping.drop.share if devices.dropping else 0.0
    training = replace(step.training, labels_home=home, samples_apart=apart, drop_tokens=share)
    step = replace(step, training=training)
    active = sorted(cuts, reverse=True)[: selected or len(cuts)]
    depth = step.shape.blocks
    kinds = {
        (cut, device.blocks_of(one)): one
        for one, cut in enumerate(cuts)
        if device.tuned_by or cut == max(cuts)
    }
    needs = []
    for (cut, tuned), one in kinds.items():
        own = with_tuned(with_batch(step, rows), as_number(tuned, depth))
        numbers = device.stack.size(device.names(cut, one))
        need = Memory(
            _weights(device),
            training_bytes(step, numbers) + samples_bytes(own, numbers),
            clipping_peak(own, numbers, activations(own, range(cut), head=home, frozen=device.frozen_half)),
        )
        needs.append(need if step.training.lean is None else device_memory(own, cut))
    largest = max(needs, key=lambda memory: memory.total)
    served: dict[int, list[int]] = {}
    for cut, server in zip(cuts, servers.server_of, strict=True):
        served.setdefault(server, []).append(cut)
    serving = {
        server: _serving(servers.trunks[server], own, step, selected) for server, own in served.items()
    }
    everything = Memory(
        _bytes(model.parameters()),
        sum(memory.trained for memory in serving.values())
        + training_bytes(step, device.stack.values.numel())
        + samples_bytes(step, device.stack.size()) * len(active),
        sum(memory.activations for memory in serving.values())
        + clipping_peak(
            step,
            device.stack.size() * len(active),
            sum(activations(step, range(cut), head=home, frozen=device.frozen_half) for cut in active),
        ),
    )
    together = serving.pop(ALL_LOCAL, None)
    if together is not None:  # each of them needs what the whole model does
        home_trunk = servers.trunks[ALL_LOCAL].segment
        parts = [*home_trunk.parameters(), *device.parts.parameters()]  # some are on both sides
        frozen = 0 if device.places else _bytes({id(part): part for part in parts}.values())
        alone = _whole(step, frozen, home_trunk.stack.size())
        largest = max(largest, alone, key=lambda memory: memory.total)
    busiest = max(serving.values(), key=lambda memory: memory.total, default=Memory())
    return FleetMemory(largest, busiest, everything)


def _serving(trunk: Trunk, cuts: Sequence[int], step: Step, selected: int) -> Memory:
    """Return what one server needs for the devices with these cuts, as many of them as a round may draw."""
    active = sorted(cuts)[: selected or len(cuts)]
    rows, wanted = step.training.batch, trunk.group_rows
    groups = count_groups(rows * len(active), rows, wanted) if wanted else 0
    return Memory(
        _weights(trunk.segment),
        training_bytes(step, trunk.segment.stack.values.numel()),
        server_activations(step.served, active, grouping=trunk.grouping, groups=groups),
    )


def whole_model_memory(model: nn.Module, trained: Sequence[Tensor], step: Step) -> Memory:
    """Return what a machine needs that trains the whole of ``model``."""
    # peft keeps the head it replaced, which no device needs.
    kept = [p for name, p in model.named_parameters() if ".original_module." not in name]
    frozen = _bytes(p for p in kept if not p.requires_grad)
    return _whole(step, frozen, sum(tensor.numel() for tensor in trained))


def _whole(step: Step, frozen: int, trained: int) -> Memory:
    """Return what a machine needs that trains the whole model, from its bytes of frozen weights and trained numbers."""
    return Memory(
        frozen, training_bytes(step, trained), activations(step, range(step.shape.blocks), head=True)
    )


def _weights(segment: Segment) -> int:
    """Return the bytes of a segment's frozen weights."""
    return 0 if segment.places else _bytes(segment.parameters())


def _bytes(tensors: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors)
