"""Server blocks that stay in the checkpoint's files: a trunk that needs no more memory than its largest block.

On a CPU, and in the type of the file, a weight is the file's own pages, which the system drops and reads again as it
needs. Anywhere else a block is copied when it runs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sflam.model.fetched_blocks import FetchedBlocks
from sflam.model.weight_files import StoredTensor, place


class FileBlocks(FetchedBlocks):
    """Blocks that are read from files when they run.

    Args:
        stored: block -> name inside it -> where it is stored.
        dtype: of the arithmetic.
        device: where they run.
    """

    def __init__(
        self, stored: Mapping[int, Mapping[str, StoredTensor]], dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__()
        self._sources: dict[int, list[tuple[Tensor, nn.Parameter]]] = {}
        self._weights: dict[int, dict[str, nn.Parameter]] = {}
        for number, names in stored.items():
            self._sources[number], self._weights[number] = [], {}
            for name, where in names.items():
                source = where.tensor
                if source.dtype == dtype and device.type == "cpu":
                    weight = nn.Parameter(source, requires_grad=False)
                else:
                    empty = torch.empty(source.shape, dtype=dtype, device=device)
                    weight = nn.Parameter(empty, requires_grad=False)
                    weight.untyped_storage().resize_(0)
                    self._sources[number].append((source, weight))
                self._weights[number][name] = weight
        every = [sum(weight.nbytes for weight in own.values()) for own in self._weights.values()]
        copied = [sum(weight.nbytes for _, weight in own) for own in self._sources.values()]
        self.elsewhere = sum(every) - max(copied, default=0)

    def install(self, blocks: nn.ModuleList) -> None:
        """Put the weights into the blocks of a model."""
        for number, weights in self._weights.items():
            place(blocks[number], weights)
            if self._sources[number]:
                self.watch(number, blocks[number])

    def fetch(self, block: int) -> None:
        """Copy a block's weights from its files."""
        for source, weight in self._sources[block]:
            weight.untyped_storage().resize_(source.numel() * weight.element_size())
            weight.data.copy_(source)  # beside autograd: to it the weight never changes

    def release(self, block: int) -> None:
        """Give the memory back."""
        for _, weight in self._sources[block]:
            weight.untyped_storage().resize_(0)
