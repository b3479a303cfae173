"""Frozen matrices in fewer bytes, for the download and the flash of a device: float16, or int8 with a scale per row.

What is read back is exact in float32, and written again gives the same bytes: a model whose device half is
:func:`round_device_half`'s is one and the same for the server, a simulation, and every kind of device.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sflam.device.settings import FLOAT16, FLOAT32
from sflam.errors import ModelError
from sflam.model.adapters import PREFIX, State
from sflam.model.backbone import Backbone
from sflam.model.export import held_tensors

SCALE = ".scale"
LEVELS = 127
SCALE_BITS = 16
"""Significant bits of a scale, rounded up: with seven bits of a level they fit float32's 24, so that no product of the
two is rounded."""
LEAST = 2.0**-100
"""Least scale, so that products are no subnormals; rows of smaller numbers become zero."""


def compact(tensors: Mapping[str, Tensor], weights: str) -> State:
    """Return name -> tensor as they travel; an int8 tensor has its scales beside it, as ``name.scale`` float32 [rows].

    Matrices, embeddings and convolutions become smaller; vectors, adapters, and what float16 cannot hold stay.
    """
    found: State = {}
    for name, tensor in tensors.items():
        if name.startswith(PREFIX) or not _shrinks(tensor, weights):
            found[name] = tensor
        elif weights == FLOAT16:
            found[name] = tensor.to(torch.float16)
        else:
            found[name], found[name + SCALE] = _levels(tensor)
    return found


def expanded(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> State:
    """Return what :func:`compact` was given, rounded; raises ModelError where an int8 tensor has no fitting scales."""
    found = dict(tensors)
    for name, tensor in tensors.items():
        if tensor.dtype == torch.float16:
            found[name] = tensor.to(dtype)
        elif tensor.dtype == torch.int8:
            scale = found.pop(name + SCALE, torch.empty(0))
            if scale.dtype != torch.float32 or scale.shape != tensor.shape[:1]:
                raise ModelError(f"the segment's int8 tensor {name[:80]} has no scale per row; join again")
            found[name] = _values(tensor, scale).to(dtype)
    return found


def round_device_half(backbone: Backbone, cut: int, labels: str, weights: str) -> None:
    """Round the frozen tensors that devices cut at ``cut`` or before hold, in place, to what they read back."""
    if weights == FLOAT32:
        return
    for tensor in held_tensors(backbone, cut, labels).values():
        if isinstance(tensor, nn.Parameter):
            with torch.no_grad():
                tensor.copy_(rounded(tensor, weights))


def rounded(tensor: Tensor, weights: str) -> Tensor:
    """Return the numbers that are read back of a tensor."""
    if not _shrinks(tensor, weights):
        return tensor
    return (tensor.half() if weights == FLOAT16 else _values(*_levels(tensor))).to(tensor.dtype)


def _shrinks(tensor: Tensor, weights: str) -> bool:
    if weights == FLOAT32 or not tensor.is_floating_point() or tensor.dim() < 2 or len(tensor) < 2:
        return False
    limit = torch.finfo(torch.float16 if weights == FLOAT16 else torch.float32).max
    return bool((tensor.abs() <= limit).all())


def _levels(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 levels and float32 scales [rows] of a tensor [rows, ...]: value = level * scale."""
    rows = tensor.detach().to(torch.float32).flatten(1)
    mantissa, exponent = torch.frexp(rows.abs().amax(1) / LEVELS)
    most = 2.0**SCALE_BITS
    scale = torch.ldexp(torch.ceil(mantissa * most) / most, exponent).clamp(min=LEAST)
    levels = torch.round(rows / scale[:, None]).clamp(-LEVELS, LEVELS)
    return levels.to(torch.int8).reshape(tensor.shape), scale


def _values(levels: Tensor, scale: Tensor) -> Tensor:
    return levels.to(torch.float32) * scale.reshape(-1, *(1,) * (levels.dim() - 1))
