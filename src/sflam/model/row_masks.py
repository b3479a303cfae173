"""Dropout drawn row by row: the mask of a row does not depend on which rows go through with it.

R rows of a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
STEP = 0x9E3779B97F4A7C15
"""Odd, so that the draws of a row have different seeds."""


class RowMasks(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, every random draw of a pass is made for each row from that row's seed.

    Args:
        seeds: of each row, in the order of the batch.
        rows: returns how many of them, the first, are in flight.
    """

    def __init__(self, seeds: Sequence[int], rows: Callable[[], int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seeds, self.rows = seeds, rows
        self.counts = [0] * len(seeds)
        self._generators: dict[torch.device, torch.Generator] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Draw what is random; run anything else as it is."""
        kwargs = kwargs or {}
        if kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        if func is aten.bernoulli_.float:
            self._each(args[0], lambda row, g: row.bernoulli_(*args[1:], generator=g))
            return args[0]
        if func is aten.rand.default:  # whole paths that are dropped
            found = torch.empty(*args, **kwargs)
            self._each(found, lambda row, g: row.uniform_(generator=g))
            return found
        if func is aten.native_dropout.default:
            x, p = args[:2]
            mask = torch.empty(x.shape, device=x.device)
            self._each(mask, lambda row, g: row.bernoulli_(1 - p, generator=g))
            return x * mask.to(x.dtype) / (1 - p), mask.bool()
        return func(*args, **kwargs)

    def _each(self, tensor: Tensor, draw: Callable[[Tensor, torch.Generator], Tensor]) -> None:
        """Draw [R, ...], or [R n, ...] where rows and tokens lie end to end."""
        rows = self.rows()
        assert len(tensor) % rows == 0 and tensor.is_contiguous(), tensor.shape
        generator = self._generators.setdefault(tensor.device, torch.Generator(tensor.device))
        for row, own in enumerate(tensor.view(rows, -1)):
            generator.manual_seed((self.seeds[row] + self.counts[row] * STEP) % 2**63)
            draw(own, generator)
            self.counts[row] += 1

    @contextmanager
    def again(self, counts: Sequence[int]) -> Iterator[None]:
        """Draw once more what was drawn when the rows had made so many draws."""
        self.counts = list(counts)
        with self:
            yield
