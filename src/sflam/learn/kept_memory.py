"""The memory of what is kept: activations from step to step (``learn.cache``, ``quant.delta``), and personal parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sflam.cost.memory import ADAPTER_BYTES, WEIGHT_BYTES, FleetMemory
from sflam.cost.training import Step
from sflam.learn.delta import VALUE_BYTES, DeltaExchange
from sflam.learn.exchange import Exchange
from sflam.learn.personal import PersonalParts
from sflam.plan import Placement
from sflam.sizes import IDENTITY


def with_kept(
    need: FleetMemory,
    exchange: Exchange,
    cache: str,
    placements: Sequence[Placement],
    samples: Sequence[Sequence[int]],
    step: Step,
) -> FleetMemory:
    """Return ``need`` with what devices and servers keep once every sample was visited.

    Args:
        need: of a training step.
        exchange: what crosses the cut.
        cache: ``learn.cache``.
        placements: of every device.
        samples: the tokens of each sample of every device.
        step: the model's.
    """
    at_home, served = [0] * len(placements), [0] * len(placements)
    for index, (place, lengths) in enumerate(zip(placements, samples, strict=True)):
        if place.alone:
            continue
        tokens, width, wide = sum(lengths), step.shape.hidden, WEIGHT_BYTES[step.training.dtype]
        if isinstance(exchange, DeltaExchange) and exchange.scheme != IDENTITY:
            at_home[index] = served[index] = tokens * width * VALUE_BYTES
        elif cache == "device":
            at_home[index] = tokens * width * wide
        elif cache == "server":
            raw = 8 * max(ADAPTER_BYTES, wide)
            bits = raw if exchange.scheme == IDENTITY else place.bits[0]
            served[index] = sum(exchange.quantizer.nbytes(count, width, bits) for count in lengths)
    servers = {place.server for place in placements}
    busiest = max(
        sum(size for size, place in zip(served, placements, strict=True) if place.server == server)
        for server in servers
    )
    return FleetMemory(
        device=need.device and replace(need.device, kept=max(at_home)),
        server=replace(need.server, kept=busiest),
        process=replace(need.process, kept=sum(at_home) + sum(served)),
    )


def with_personal(need: FleetMemory, personal: PersonalParts, devices: int, *, served: bool) -> FleetMemory:
    """Return ``need`` with the personal parts of all devices, kept from round to round beside what a step trains.

    A device has its own in what it trains. Where the server has them (``served``), it keeps those of all.
    """
    size = devices * sum(tensor.nbytes for tensor in personal.start.values())
    server = replace(need.server, kept=need.server.kept + size * served)
    return replace(need, server=server, process=replace(need.process, kept=need.process.kept + size))
