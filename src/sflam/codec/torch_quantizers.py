"""The quantizers for torch tensors: the same names and the same bytes as the NumPy ones for the same seed.

Tensors on the CPU are handed to NumPy without a copy, which is several times faster there than torch operations;
tensors on an accelerator are encoded where they are.
"""

from __future__ import annotations

from typing import Protocol

import torch

from sflam import sizes
from sflam.codec.identity import Identity
from sflam.codec.quantizer import Packed, Quantizer
from sflam.codec.quantizers import QUANTIZERS
from sflam.codec.rotation import Rotated
from sflam.codec.settings import SCHEMES
from sflam.codec.torch_rotation import decode_rotated, encode_rotated, round_trip_rotated
from sflam.codec.torch_uniform import decode_on_device, encode_on_device, round_trip_on_device
from sflam.codec.uniform import Uniform
from sflam.errors import QuantizerError, unknown
from sflam.registry import add

CPU = torch.device("cpu")


class TorchQuantizer(Protocol):
    """``Quantizer`` over torch tensors of any device; ``Packed`` always holds NumPy arrays."""

    @property
    def name(self) -> str:
        """The name in ``quant.scheme`` and in ``Packed.scheme``."""

    def encode(self, x: torch.Tensor, bits: int, seed: int) -> Packed:
        """Encode [n, d] of any float type, read as float32; QuantizerError like ``Quantizer.encode``."""

    def decode(self, packed: Packed, device: torch.device = CPU) -> torch.Tensor:
        """Return float32 [n, d] on ``device``. QuantizerError like ``Quantizer.decode``."""

    def round_trip(self, x: torch.Tensor, bits: int, seed: int) -> torch.Tensor:
        """Return ``decode(encode(x, bits, seed))`` on the device of ``x``, exactly, without packing."""

    def nbytes(self, tokens: int, dim: int, bits: int) -> int:
        """Return the exact bytes of codes and side information, before encoding."""


class TorchIdentity:
    """Raw floats; float64 stays float64, every other float type becomes float32."""

    name = Identity.name

    def nbytes(self, tokens: int, dim: int, bits: int) -> int:
        """Return the exact bytes: 8 per value where ``bits`` is 64, else 4."""
        return sizes.payload_bytes(tokens, dim, bits, self.name)

    def encode(self, x: torch.Tensor, bits: int, seed: int) -> Packed:
        """Encode [n, d]. See ``TorchQuantizer.encode``."""
        x = x.detach() if x.dtype == torch.float64 else x.detach().float()
        return Identity().encode(x.cpu().numpy(), bits, seed)

    def decode(self, packed: Packed, device: torch.device = CPU) -> torch.Tensor:
        """Return float32 or float64 [n, d], a copy. See ``TorchQuantizer.decode``."""
        return torch.from_numpy(Identity().decode(packed).copy()).to(device)

    def round_trip(self, x: torch.Tensor, bits: int, seed: int) -> torch.Tensor:
        """Return ``x`` in the type that would be sent. See ``TorchQuantizer.round_trip``."""
        return x.detach() if x.dtype == torch.float64 else x.detach().float()


class TorchUniform:
    """Stochastic uniform quantization; see ``uniform``."""

    name = Uniform.name

    def nbytes(self, tokens: int, dim: int, bits: int) -> int:
        """Return the exact bytes of codes and side information, before encoding."""
        return sizes.payload_bytes(tokens, dim, bits)

    def encode(self, x: torch.Tensor, bits: int, seed: int) -> Packed:
        """Encode [n, d]. See ``TorchQuantizer.encode``."""
        x = x.detach().float()
        if x.device.type == "cpu":
            return Uniform().encode(x.numpy(), bits, seed)
        return encode_on_device(x, bits, seed)

    def decode(self, packed: Packed, device: torch.device = CPU) -> torch.Tensor:
        """Return float32 [n, d] on ``device``. See ``TorchQuantizer.decode``."""
        if device.type == "cpu":
            return torch.from_numpy(Uniform().decode(packed))
        return decode_on_device(packed, device)

    def round_trip(self, x: torch.Tensor, bits: int, seed: int) -> torch.Tensor:
        """Return what the other side would decode. See ``TorchQuantizer.round_trip``."""
        if x.device.type == "cpu":
            return self.decode(self.encode(x, bits, seed))
        return round_trip_on_device(x.detach().float(), bits, seed)


class TorchRotated:
    """Uniform quantization of rotated tokens; see ``rotation``."""

    name = Rotated.name

    def nbytes(self, tokens: int, dim: int, bits: int) -> int:
        """Return the exact bytes of codes and side information, before encoding."""
        return sizes.payload_bytes(tokens, dim, bits, self.name)

    def encode(self, x: torch.Tensor, bits: int, seed: int) -> Packed:
        """Encode [n, d]. See ``TorchQuantizer.encode``."""
        x = x.detach().float()
        if x.device.type == "cpu":
            return Rotated().encode(x.numpy(), bits, seed)
        return encode_rotated(x, bits, seed)

    def decode(self, packed: Packed, device: torch.device = CPU) -> torch.Tensor:
        """Return float32 [n, d] on ``device``. See ``TorchQuantizer.decode``."""
        if device.type == "cpu":
            return torch.from_numpy(Rotated().decode(packed))
        return decode_rotated(packed, device)

    def round_trip(self, x: torch.Tensor, bits: int, seed: int) -> torch.Tensor:
        """Return what the other side would decode. See ``TorchQuantizer.round_trip``."""
        if x.device.type == "cpu":
            return self.decode(self.encode(x, bits, seed))
        return round_trip_rotated(x.detach().float(), bits, seed)


TORCH_QUANTIZERS: dict[str, TorchQuantizer] = {
    each.name: each for each in (TorchUniform(), TorchRotated(), TorchIdentity())
}

assert set(TORCH_QUANTIZERS) == set(SCHEMES)


class ByNumpy:
    """A NumPy quantizer for torch tensors of any device, which go through the CPU.

    Args:
        inner: the quantizer.
    """

    def __init__(self, inner: Quantizer) -> None:
        self.inner, self.name = inner, inner.name

    def nbytes(self, tokens: int, dim: int, bits: int) -> int:
        """Return the exact bytes of codes and side information, before encoding."""
        return self.inner.nbytes(tokens, dim, bits)

    def encode(self, x: torch.Tensor, bits: int, seed: int) -> Packed:
        """Encode [n, d]. See ``TorchQuantizer.encode``."""
        return self.inner.encode(x.detach().float().cpu().numpy(), bits, seed)

    def decode(self, packed: Packed, device: torch.device = CPU) -> torch.Tensor:
        """Return float32 [n, d] on ``device``. See ``TorchQuantizer.decode``."""
        return torch.from_numpy(self.inner.decode(packed)).to(device)

    def round_trip(self, x: torch.Tensor, bits: int, seed: int) -> torch.Tensor:
        """Return what the other side would decode. See ``TorchQuantizer.round_trip``."""
        return self.decode(self.encode(x, bits, seed), x.device)


def register(quantizer: Quantizer) -> None:
    """Make an own quantizer known as ``quant.scheme = quantizer.name`` in this process.

    Args:
        quantizer: see ``Quantizer``; its bodies have the layout of ``uniform``: codes of ``bits`` each, and two
            bfloat16 numbers a token.

    Raises:
        ConfigError: the name is taken, or cannot be one.
    """
    add("quantizer", quantizer.name, quantizer, QUANTIZERS)
    TORCH_QUANTIZERS[quantizer.name] = ByNumpy(quantizer)


def torch_quantizer(name: str) -> TorchQuantizer:
    """Return the torch quantizer called ``name``.

    Raises:
        QuantizerError: no such scheme; the message lists the known ones.
    """
    if name not in TORCH_QUANTIZERS:
        raise QuantizerError(unknown("scheme", name, TORCH_QUANTIZERS))
    return TORCH_QUANTIZERS[name]
