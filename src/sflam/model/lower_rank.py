"""Adapters of a lower LoRA rank than the model's: the first components of every factor, scaled as they are there.

Shapes: r rank, i inputs, o outputs.
"""

from __future__ import annotations

from torch import Tensor, nn

from sflam.model.lora import StackedLinear, StackedLoRA
from sflam.model.segment import Segment
from sflam.model.stack import AdapterStack

A_ENDS, B_ENDS = ".lora_A.weight", ".lora_B.weight"
"""How peft's names of the factors end."""


def first_components(name: str, tensor: Tensor, rank: int) -> Tensor:
    """Return the view of the first components of a factor: A [rank,i], B [o,rank]; anything else as it is."""
    if name.endswith(A_ENDS):
        return tensor[:rank]
    return tensor[:, :rank] if name.endswith(B_ENDS) else tensor


def narrow(segment: Segment, rank: int) -> None:
    """Keep the first ``rank`` components of every adapter of a segment with one row of them."""
    names = {id(tensor): name for name, tensor in segment.stack.tensors.items()}
    kept = {name: first_components(name, tensor, rank) for name, tensor in segment.stack.read(0).items()}
    stack = segment.stack = AdapterStack(kept, 1, segment.stack.values.dtype, segment.stack.values.device)

    def own(tensor: Tensor) -> Tensor | None:
        return stack.tensors[names[id(tensor)]] if id(tensor) in names else None

    for module in segment.modules():
        if isinstance(module, StackedLoRA):
            a, b = own(module.a), own(module.b)
            module.a = nn.Parameter(module.a[:, :rank], requires_grad=False) if a is None else a
            module.b = nn.Parameter(module.b[:, :, :rank], requires_grad=False) if b is None else b
        elif isinstance(module, StackedLinear):
            weight, bias = own(module.weight), None if module.bias is None else own(module.bias)
            assert weight is not None, "a new head is trained"
            module.weight, module.bias = weight, bias
