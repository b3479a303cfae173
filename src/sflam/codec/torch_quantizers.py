"""The quantizers for torch tensors: each is the NumPy one, so that names and bytes are the same for the same seed.

Tensors on the CPU are handed to NumPy without a copy, which is several times faster there than torch operations. On an
accelerator they are encoded where they are, by schemes that can; other schemes send them through the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from sflam.codec.quantizer import Floats, Keyed, Packed, Quantizer, Remembering, VariableSize, offers
from sflam.codec.quantizers import QUANTIZERS
from sflam.codec.rotation import Rotated
from sflam.codec.together import decode_together, encode_together, passes
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
        self._memory = inner if isinstance(inner, Remembering) else None
        self._together = cast(Keyed, inner) if offers(inner, Keyed, "encode_keyed") else None

    def nbytes(self, tokens: int, dim: int, bits: int) -> int:
        """Return the exact bytes of codes and side information, before encoding; or the bound of a variable size."""
        return self.inner.nbytes(tokens, dim, bits)

    def encode(self, x: torch.Tensor, bits: int, seed: int) -> Packed:
        """Encode [n, d] of any float type, read as float32; QuantizerError like ``Quantizer.encode``."""
        x = self._read(x)
        there = self._on(x.device)
        return there.encode(x, bits, seed) if there else self.inner.encode(x.cpu().numpy(), bits, seed)

    def encode_each(
        self, each: Sequence[torch.Tensor], bits: Sequence[int], seeds: Sequence[int]
    ) -> list[Packed]:
        """Return :meth:`encode` of several messages [n_k, d_k]; on the CPU small ones are encoded in one pass."""
        found: list[Packed] = []
        for start, stop in passes([(width, *x.shape) for x, width in zip(each, bits, strict=True)]):
            own, noise = each[start:stop], seeds[start:stop]
            if self._together and len(own) > 1 and own[0].device == CPU:
                every = self._read(laid_together(own)).numpy()
                try:
                    found += encode_together(self._together, every, [*map(len, own)], bits[start], noise)
                    continue
                except QuantizerError:  # what is wrong is found one by one, below
                    pass
            found += [self.encode(x, bits[start], seed) for x, seed in zip(own, noise, strict=True)]
        return found

    def decode_each(self, each: Sequence[Packed], device: torch.device = CPU) -> list[torch.Tensor]:
        """Return :meth:`decode` of several messages; on the CPU small ones are decoded in one pass."""
        found: list[torch.Tensor] = []
        for start, stop in passes([(packed.bits, packed.tokens, packed.dim) for packed in each]):
            own = each[start:stop]
            if self._together and len(own) > 1 and device == CPU:
                found += map(torch.from_numpy, decode_together(self.inner, own))
            else:
                found += [self.decode(packed, device) for packed in own]
        return found

    @property
    def remembers(self) -> bool:
        """Whether gradients are encoded by :meth:`encode_after`."""
        return self._memory is not None

    def encode_after(
        self, left: Floats | None, x: torch.Tensor, bits: int, seed: int
    ) -> tuple[Packed, Floats]:
        """Encode [n, d] with what was left out before; see ``Remembering.encode_after``."""
        assert self._memory is not None
        return self._memory.encode_after(left, self._read(x).cpu().numpy(), bits, seed)

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


def laid_together(each: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return tensors [n_k, ...] one after another: a view where they are parts of one tensor, which lie so already."""
    first, start = each[0], each[0].storage_offset()
    for x in each:
        same = x.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if not (same and x.storage_offset() == start and x.is_contiguous() and x.dtype == first.dtype):
            return torch.cat([*each])
        start += x.numel()
    count, before = sum(map(len, each)), each[0].storage_offset()
    return first.as_strided((start - before,), (1,)).view(count, *first.shape[1:])


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
