"""Training every weight: a model without adapters, and segments whose copies each have weights of their own.

Weights of whole layers are not batched over devices as adapters are: a pass goes from device to device, and installs
the weights of each before its rows come. Memory grows with the model, once per device: this is for small models.

Shapes: K copies, P numbers of one side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sflam.model.stack import AdapterStack


class FullModel(nn.Module):
    """A whole model, every weight trained, with what a run asks of a peft model; names are as peft's would be.

    Args:
        base: the unmodified Hugging Face model.
    """

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base_model = nn.Module()
        self.base_model.model = base
        base.requires_grad_()

    def forward(self, **arguments: Any) -> Any:
        """Run the model itself."""
        return self.get_base_model()(**arguments)

    def get_base_model(self) -> Any:
        """Return the model."""
        return self.base_model.model

    merge_and_unload = get_base_model  # there is nothing to merge

    def trained(self) -> dict[str, Tensor]:
        """Return every weight by name; one that stands in two places goes by the first."""
        return dict(self.named_parameters())


class WeightStack(AdapterStack):
    """A stack whose forward uses one row at a time, so each row's tensors are leaves of their own.

    Attributes:
        views: for each place, name -> leaf view of ``values``.
    """

    def __init__(
        self,
        initial: Mapping[str, Tensor],
        copies: int,
        dtype: torch.dtype,
        device: torch.device | str,
        seats: int = 0,
    ) -> None:
        super().__init__(initial, copies, dtype, device, seats)
        self.tensors = {}
        self.views = [
            {
                name: self.values[row, slot.columns].view(slot.shape).requires_grad_()
                for name, slot in self.slots.items()
            }
            for row in range(len(self.values))
        ]

    def backward(
        self,
        output: Tensor,
        grad_output: Tensor | None = None,
        inputs: Sequence[Tensor] = (),
        *,
        again: bool = False,
    ) -> list[Tensor | None]:
        """Add the gradients of ``output`` to ``grads`` of the active rows; return those of ``inputs``."""
        active = self.moving
        wanted = [*inputs, *(view for row in active for view in self.views[row].values())]
        found = torch.autograd.grad(output, wanted, grad_output, allow_unused=True, retain_graph=again)
        rest = iter(found[len(inputs) :])
        for row in active:
            for slot in self.slots.values():
                grad = next(rest)
                if grad is not None:
                    self.grads[row, slot.columns] += grad.reshape(-1)
        return list(found[: len(inputs)])


class Places:
    """Where the weights of a stack stand in the modules of a segment; a tied weight stands in several places."""

    def __init__(self, stack: WeightStack) -> None:
        self.stack = stack
        self.installed = 0
        self._places: list[tuple[nn.Module, str, str]] = []

    def add(self, module: nn.Module, names: Mapping[int, str]) -> None:
        """Note the places of the stack's weights below ``module``; ``names`` is id of a weight -> its name."""
        for inner in module.modules():
            for key, parameter in inner._parameters.items():
                name = names.get(id(parameter))
                if name in self.stack.slots:
                    self._places.append((inner, key, name))

    def install(self, copy: int) -> None:
        """Put the weights of one copy in their places."""
        self.installed = copy
        views: dict[str, Any] = dict(self.stack.views[self.stack.place(copy)])
        for module, key, name in self._places:
            module._parameters[key] = views[name]
