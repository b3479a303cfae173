"""``learn.aggregation = "residual"``: what an average of factors leaves out goes into the frozen weights of both sides.

Source: Singhal, Ponkshe and Vepakomma, "FedEx-LoRA: Exact aggregation for federated and efficient fine-tuning of
foundation models", 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sflam.learn.adapter_exchange import flatten, send_adapters
from sflam.learn.aggregate import correct
from sflam.model.adapters import State
from sflam.model.lower_rank import B_ENDS


class Corrections:
    """The frozen weights that rounds correct, which both sides of a simulated fleet share.

    Args:
        layers: the adapted layers, by name.
        holds: whether a device holds an adapter, by the device and the adapter's name.
    """

    def __init__(self, layers: Mapping[str, Any], holds: Callable[[int, str], bool]) -> None:
        self._layers, self._holds = layers, holds

    def add(self, round: int, devices: Sequence[int], found: State) -> int:
        """Add the residuals ``found`` to the frozen weights; return the bytes that devices must be sent."""
        correct(self._layers, found)
        sent = 0
        for device in devices:
            if held := [name for name in found if self._holds(device, name + B_ENDS)]:
                sent += len(send_adapters(round, device, 0, flatten(found, held).float()))
        return sent

    def held(self, device: int) -> State:
        """Return the frozen weights [o, i] of a device's adapted layers, by layer, as rounds corrected them."""
        return {name: each for name, each in self.state().items() if self._holds(device, name + B_ENDS)}

    def state(self) -> State:
        """Return the frozen weights of all adapted layers, by layer."""
        return {name: layer.get_base_layer().weight.detach() for name, layer in self._layers.items()}

    def restore(self, state: State) -> None:
        """Put back what :meth:`state` returned."""
        for name, weight in self.state().items():
            weight.copy_(state[name])
