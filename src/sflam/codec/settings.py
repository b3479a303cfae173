"""``[quant]``: how activations and gradients are quantized at the cut. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from sflam.ranges import Ranges
from sflam.registry import OWN
from sflam.sizes import ADAPTER_BITS, FLOAT_BITS, IDENTITY, MAX_BITS, MIN_BITS

SCALES = ("own", "common")
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
        bits_adapters: bits per adapter value, device to server, 1..16 or 32; below 32 the change since the round began
            travels, rounded stochastically, whatever ``scheme`` is; ``identity`` and methods without quantization
            ignore it.
        adapters_scale: with few ``bits_adapters``, ``own`` offsets and steps for every device's change, or ``common``
            ones for all devices of a round, which the server sets from the last round, so that a sum of codes is the
            sum of the changes.
        delta: send the quantized change of each sample's activations since it was last sent, instead of the activations
            (AQ-SGD); device and server keep every sample's.
    """

    scheme: str = "uniform"
    bits_up: int = 8
    bits_down: int = 8
    bits_adapters: int = ADAPTER_BITS
    adapters_scale: str = "own"
    delta: bool = False

    def __post_init__(self) -> None:
        ranges = Ranges(self, "quant")
        ranges.named("scheme", (*SCHEMES, *OWN["quantizer"]), "scheme")
        ranges.between(MIN_BITS, MAX_BITS, "bits_up", "bits_down")
        ranges.one_of(SCALES, "adapters_scale")
        ranges.one_of((*range(MIN_BITS, MAX_BITS + 1), FLOAT_BITS), "bits_adapters")
        ranges.check()

    @property
    def adapters(self) -> int:
        """The bits in which adapters go up: those of a float where all else does, too."""
        return FLOAT_BITS if self.scheme == IDENTITY else self.bits_adapters
