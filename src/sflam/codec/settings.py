"""``[quant]``: how activations and gradients are quantized at the cut. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from sflam.errors import ConfigError, unknown
from sflam.registry import OWN
from sflam.sizes import MAX_BITS, MIN_BITS

SCHEMES = ("uniform", "rotated", "identity")


@dataclass(frozen=True, kw_only=True)
class QuantSettings:
    """How what crosses the cut is quantized.

    Attributes:
        scheme: ``uniform`` (stochastic, one offset and step per token), ``rotated`` (the same after a rotation that
            spreads outliers) or ``identity`` (raw floats).
        bits_up: bits per activation value, device to server, 1..16; ``identity`` ignores it.
        bits_down: bits per gradient value, server to device, 1..16; ``identity`` ignores it.
    """

    scheme: str = "uniform"
    bits_up: int = 8
    bits_down: int = 8

    def __post_init__(self) -> None:
        problems = []
        schemes = (*SCHEMES, *OWN["quantizer"])
        if self.scheme not in schemes:
            problems.append(f"quant.scheme: {unknown('scheme', self.scheme, schemes)}")
        for key in ("bits_up", "bits_down"):
            if not MIN_BITS <= getattr(self, key) <= MAX_BITS:
                problems.append(
                    f"quant.{key} is {getattr(self, key)}; it must be between {MIN_BITS} and {MAX_BITS}"
                )
        if problems:
            raise ConfigError(problems)
