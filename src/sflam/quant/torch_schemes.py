"""The quantizers for torch tensors: the same names and the same bytes as the NumPy ones for the same seed.

Tensors on the CPU are handed to NumPy without a copy: it is faster there and identical by construction. On an
accelerator the codes are made and packed where the tensor is; only packed bytes and per-token extremes move.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from sflam import payload
from sflam.errors import QuantizerError, unknown
from sflam.quant import grid
from sflam.quant.identity import Identity
from sflam.quant.quantizer import Packed, expect_scheme
from sflam.quant.settings import SCHEMES
from sflam.quant.torch_noise import draws
from sflam.quant.torch_packing import pack, unpack
from sflam.quant.uniform import Uniform, check_shape, fixed_point_unit

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
        return payload.payload_bytes(tokens, dim, bits, self.name)

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
        return payload.payload_bytes(tokens, dim, bits)

    def encode(self, x: torch.Tensor, bits: int, seed: int) -> Packed:
        """Encode [n, d]. See ``TorchQuantizer.encode``."""
        x = x.detach().float()
        if x.device == CPU:
            return Uniform().encode(x.numpy(), bits, seed)
        return self.encode_on_device(x, bits, seed)

    def encode_on_device(self, x: torch.Tensor, bits: int, seed: int) -> Packed:
        """Encode float32 [n, d] with torch alone, on the device of ``x``."""
        codes, levels = _quantize(x.detach(), bits, seed)
        packed = pack(codes.reshape(-1), bits).cpu().numpy()
        return Packed(self.name, bits, x.shape[0], x.shape[1], packed, levels.side)

    def decode(self, packed: Packed, device: torch.device = CPU) -> torch.Tensor:
        """Return float32 [n, d] on ``device``. See ``TorchQuantizer.decode``."""
        if device == CPU:
            return torch.from_numpy(Uniform().decode(packed))
        return self.decode_on_device(packed, device)

    def decode_on_device(self, packed: Packed, device: torch.device) -> torch.Tensor:
        """Return float32 [n, d], computed with torch alone on ``device``."""
        expect_scheme(packed, self.name)
        levels = grid.restore(packed.side, packed.bits)
        data = torch.from_numpy(np.require(packed.codes, requirements="W")).to(device)
        codes = unpack(data, packed.bits, packed.tokens * packed.dim)
        return _dequantize(codes.view(-1, packed.dim), levels)

    def round_trip(self, x: torch.Tensor, bits: int, seed: int) -> torch.Tensor:
        """Return what the other side would decode. See ``TorchQuantizer.round_trip``."""
        x = x.detach().float()
        if x.device == CPU:
            return torch.from_numpy(Uniform().decode(Uniform().encode(x.numpy(), bits, seed)))
        return self.round_trip_on_device(x, bits, seed)

    def round_trip_on_device(self, x: torch.Tensor, bits: int, seed: int) -> torch.Tensor:
        """Return what the other side would decode, with torch alone, on the device of ``x``."""
        return _dequantize(*_quantize(x.detach(), bits, seed))


TORCH_QUANTIZERS: dict[str, TorchQuantizer] = {each.name: each for each in (TorchUniform(), TorchIdentity())}

assert set(TORCH_QUANTIZERS) == set(SCHEMES)


def torch_quantizer(name: str) -> TorchQuantizer:
    """Return the torch quantizer called ``name``.

    Raises:
        QuantizerError: no such scheme; the message lists the known ones.
    """
    if name not in TORCH_QUANTIZERS:
        raise QuantizerError(unknown("scheme", name, TORCH_QUANTIZERS))
    return TORCH_QUANTIZERS[name]


def _quantize(x: torch.Tensor, bits: int, seed: int) -> tuple[torch.Tensor, grid.Grid]:
    tokens, dim = check_shape(tuple(x.shape), bits)
    extremes = torch.stack([x.amin(dim=1), x.amax(dim=1)]).cpu().numpy()
    levels = grid.fit(extremes[0], extremes[1], bits)
    offset = torch.from_numpy(levels.offset).to(x.device)
    unit = torch.from_numpy(fixed_point_unit(levels.step)).to(x.device)
    fixed = ((x - offset) / unit).round().long()
    codes = fixed + draws(seed, tokens, dim, x.device) >> 16
    return codes.clamp(max=(1 << bits) - 1), levels  # in case a device's division is not correctly rounded


def _dequantize(codes: torch.Tensor, levels: grid.Grid) -> torch.Tensor:
    offset, step = (torch.from_numpy(part).to(codes.device) for part in (levels.offset, levels.step))
    return codes * step + offset
