"""Frozen weights that the average corrected (``learn.aggregation = "residual"``), as a device gets them every round.

They go whole and not as their change: a change has as many values, since its rank is up to r times the devices, and a
device that was away, or died, then has the right ones whichever rounds it missed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from torch import Tensor

from sflam.errors import WireError
from sflam.learn.split_fleet import LocalFleet
from sflam.link.adapter_way import AdapterWay
from sflam.link.https_client import Link
from sflam.model.adapters import layers_of
from sflam.model.backbone import Backbone
from sflam.model.lower_rank import B_ENDS
from sflam.model.split import DeviceSegment
from sflam.serve.ingress import Ingress
from sflam.serve.step_routes import AT, place

SHAPES = 1 << 20
"""Bytes that names and shapes of the weights may take beside them."""


class CorrectedWeights:
    """The server's side.

    Args:
        local: the job's simulated fleet, which corrects them.
        ingress: how a device comes in.
    """

    def __init__(self, local: LocalFleet, ingress: Ingress) -> None:
        self._local, self._ingress = local, ingress

    def routes(self) -> list[Route]:
        """Return the route of the weights of an open round."""

        async def weights(request: Request) -> Response:
            ingress = self._ingress
            device = ingress.device(request)
            ingress.stats.requested(device)
            round, attempt = place(request, "round", "attempt")
            with ingress.dispatch.looked() as session:  # none is corrected while a round is open
                session.seat(device, round, attempt)
                body = self.body(device) if round else b""
            return ingress.down(request, body, adapters=True)

        return [self._ingress.route(f"{AT}/frozen", "GET", weights)]

    def body(self, device: int) -> bytes:
        """Return the weights of the adapted layers that a device holds, layer -> [o, i], as safetensors."""
        held = self._local.corrections.held(device)
        return safetensors.torch.save({name: weight.cpu().contiguous() for name, weight in held.items()})


class CorrectedWay(AdapterWay):
    """The device's side: what it holds is made right before a round begins, or goes on in a new process.

    Args:
        link: the way to the server.
        layers: layer -> its frozen weight [o, i], as the server names them.
    """

    def __init__(self, link: Link, layers: Mapping[str, Tensor]) -> None:
        super().__init__(link)
        self._layers = layers
        self._of: tuple[int, int] | None = None

    def prepare(self, round: int, attempt: int) -> None:
        """Take the weights of a round over.

        Raises:
            WireError: others came than those of this device's layers.
        """
        if self._of == (round, attempt):
            return
        most = SHAPES + sum(weight.numel() * weight.element_size() for weight in self._layers.values())
        if body := self._link.call("GET", f"/v1/rounds/{round}/{attempt}/frozen", most=most):
            take_over(self._layers, bytes(body))
        self._of = (round, attempt)


def frozen_weights(backbone: Backbone, segment: DeviceSegment, cut: int) -> dict[str, Tensor]:
    """Return layer -> the frozen weight of each adapted layer of a device with ``cut`` blocks."""
    return {
        name: layer.get_base_layer().weight
        for name, layer in layers_of(backbone.model).items()
        if segment.holds(name + B_ENDS, cut)
    }


@torch.no_grad()
def take_over(layers: Mapping[str, Tensor], body: bytes) -> None:
    """Write the weights in ``body`` into those of ``layers``, all or none; raises WireError where they do not fit."""
    try:
        found = safetensors.torch.load(body)
    except (SafetensorError, ValueError, KeyError) as error:
        raise WireError(f"corrected weights cannot be read ({str(error)[:80]})") from None
    kinds: list[dict[str, Any]] = [
        {name: (tuple(each.shape), each.dtype) for name, each in weights.items()}
        for weights in (found, layers)
    ]
    if kinds[0] != kinds[1]:
        other = sorted(
            name for name in kinds[0].keys() | kinds[1] if kinds[0].get(name) != kinds[1].get(name)
        )
        raise WireError(
            f"corrected weights of {other[0][:80]!r} came, or are lacking, unlike this device's: join again"
        )
    if wrong := [name for name, weight in found.items() if not weight.isfinite().all()]:
        raise WireError(f"corrected weights of {wrong[0][:80]!r} are not finite numbers")
    for name, weight in found.items():
        layers[name].copy_(weight)
