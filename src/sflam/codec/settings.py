"""``[quant]``: how activations and gradients are quantized at the cut. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from sflam.ranges import Ranges
from sflam.registry import OWN
from sflam.sizes import MAX_BITS, MIN_BITS

SCHEMES = ("uniform", "rotated", "topk", "identity")


@dataclass(frozen=True, kw_only=True)
class QuantSettings:
    """How what crosses the cut is quantized.

    Attributes:
        scheme: ``uniform`` (stochastic, one offset and step per token), ``rotated`` (the same after a rotation that
            spreads outliers), ``topk`` (the largest values of a token, as many as fit into the bits of all, with
            error feedback for gradients) or ``identity`` (raw floats).
        bits_up: bits per activation value, device to server, 1..16; ``identity`` ignores it.
        bits_down: bits per gradient value, server to device, 1..16; ``identity`` ignores it.
        delta: send the quantized change of each sample's activations since it was last sent, instead of the activations
            (AQ-SGD); device and server keep every sample's.
    """

    scheme: str = "uniform"
    bits_up: int = 8
    bits_down: int = 8
    delta: bool = False

    def __post_init__(self) -> None:
        ranges = Ranges(self, "quant")
        ranges.named("scheme", (*SCHEMES, *OWN["quantizer"]), "scheme")
        ranges.between(MIN_BITS, MAX_BITS, "bits_up", "bits_down")
        ranges.check()
