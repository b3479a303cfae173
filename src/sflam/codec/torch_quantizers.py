"""The quantizers for torch tensors: each is the NumPy one, so that names and bytes are the same for the same seed.

Tensors on the CPU are handed to NumPy without a copy, which is several times faster there than torch operations. On an
accelerator they are encoded where they are, by schemes that can; other schemes send them through the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sflam.codec.quantizer import Floats, Packed, Quantizer, Remembering, VariableSize
from sflam.codec.quantizers import QUANTIZERS
from sflam.codec.rotation import Rotated
from sflam.codec.torch_rotation import decode_rotated, encode_rotated, round_trip_rotated
from sflam.codec.torch_uniform import decode_on_device, encode_on_device, round_trip_on_device
from sflam.codec.uniform import Uniform
from sflam.errors import QuantizerError, unknown
from sflam.registry import add
from sflam.sizes import BOUNDS, IDENTITY

CPU = torch.device("cpu")


@dataclass(frozen=True)
class OnDevice:
    """A scheme in torch operations, where the tensor is: the bytes of the NumPy one.

    Attributes:
        encode: float32 [n, d], bits and seed to what travels.
        decode: that to float32 [n, d] on a device.
        round_trip: both, without packing.
    """

    encode: Callable[[torch.Tensor, int, int], Packed]
    decode: Callable[[Packed, torch.device], torch.Tensor]
    round_trip: Callable[[torch.Tensor, int, int], torch.Tensor]


ON_DEVICE: dict[str, OnDevice] = {
    Uniform.name: OnDevice(encode_on_device, decode_on_device, round_trip_on_device),
    Rotated.name: OnDevice(encode_rotated, decode_rotated, round_trip_rotated),
}


class TorchQuantizer:
    """A quantizer over torch tensors of any device; ``Packed`` always holds NumPy arrays.

    Args:
        inner: the NumPy quantizer.
    """

    def __init__(self, inner: Quantizer) -> None:
        self.inner, self.name = inner, inner.name

    def nbytes(self, tokens: int, dim: int, bits: int) -> int:
        """Return the exact bytes of codes and side information, before encoding; or the bound of a variable size."""
        return self.inner.nbytes(tokens, dim, bits)

    def encode(self, x: torch.Tensor, bits: int, seed: int) -> Packed:
        """Encode [n, d] of any float type, read as float32; QuantizerError like ``Quantizer.encode``."""
        x = self._read(x)
        there = self._on(x.device)
        return there.encode(x, bits, seed) if there else self.inner.encode(x.cpu().numpy(), bits, seed)

    @property
    def remembers(self) -> bool:
        """Whether gradients are encoded by :meth:`encode_after`."""
        return isinstance(self.inner, Remembering)

    def encode_after(
        self, left: Floats | None, x: torch.Tensor, bits: int, seed: int
    ) -> tuple[Packed, Floats]:
        """Encode [n, d] with what was left out before; see ``Remembering.encode_after``."""
        assert isinstance(self.inner, Remembering)
        return self.inner.encode_after(left, self._read(x).cpu().numpy(), bits, seed)

    def decode(self, packed: Packed, device: torch.device = CPU) -> torch.Tensor:
        """Return float32 [n, d] on ``device``. QuantizerError like ``Quantizer.decode``."""
        if there := self._on(device):
            return there.decode(packed, device)
        values = np.require(self.inner.decode(packed), requirements=["W", "O"])  # not a view of what came
        return torch.from_numpy(values).to(device)

    def round_trip(self, x: torch.Tensor, bits: int, seed: int) -> torch.Tensor:
        """Return ``decode(encode(x, bits, seed))`` on the device of ``x``, exactly, without packing."""
        if self.name == IDENTITY:
            return self._read(x)
        if there := self._on(x.device):
            return there.round_trip(self._read(x), bits, seed)
        return self.decode(self.encode(x, bits, seed), x.device)

    def _read(self, x: torch.Tensor) -> torch.Tensor:
        """Return what is sent: float32, or float64 where raw floats travel."""
        wide = self.name == IDENTITY and x.dtype == torch.float64
        return x.detach() if wide else x.detach().float()

    def _on(self, device: torch.device) -> OnDevice | None:
        return None if device.type == "cpu" else ON_DEVICE.get(self.name)


TORCH_QUANTIZERS: dict[str, TorchQuantizer] = {
    name: TorchQuantizer(inner) for name, inner in QUANTIZERS.items()
}


def register(quantizer: Quantizer) -> None:
    """Make an own quantizer known as ``quant.scheme = quantizer.name`` in this process.

    Args:
        quantizer: see ``Quantizer``; its bodies have the layout of ``uniform``: codes of ``bits`` each, and two
            bfloat16 numbers a token. With ``bound_bytes`` (see ``VariableSize``) the codes are any bytes within
            that; with ``encode_after`` (see ``Remembering``) it has memory for every device's gradients.

    Raises:
        ConfigError: the name is taken, or cannot be one.
    """
    torch_side = TorchQuantizer(quantizer)
    tables: list[tuple[dict[str, Any], Any]] = [(TORCH_QUANTIZERS, torch_side)]
    if isinstance(quantizer, VariableSize):
        tables.append((BOUNDS, quantizer.bound_bytes))
    add("quantizer", quantizer.name, quantizer, QUANTIZERS, *tables)


def torch_quantizer(name: str) -> TorchQuantizer:
    """Return the torch quantizer called ``name``.

    Raises:
        QuantizerError: no such scheme; the message lists the known ones.
    """
    if name not in TORCH_QUANTIZERS:
        raise QuantizerError(unknown("scheme", name, TORCH_QUANTIZERS))
    return TORCH_QUANTIZERS[name]
