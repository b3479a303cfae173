"""Frozen weights that are in memory only while their block runs, forward or backward.

Every copy of a block shares the parameters, whose storage is empty until the block is wanted. What autograd keeps of
them is the parameter itself, so a backward finds its numbers again once they are back. At most one block is there.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import torch
from torch import Tensor, nn

M_MMAP_THRESHOLD, MEGABYTE = -3, 1 << 20
"""Of glibc's mallopt: what is larger is given back to the system when it is freed."""


class FetchedBlocks:
    """Blocks whose weights come when they are wanted; see :meth:`watch`.

    Attributes:
        held: the block whose weights are there; None for no block.
        elsewhere: bytes of the weights beyond what this process has in memory while a block runs.
    """

    elsewhere = 0

    def __init__(self) -> None:
        self.held: int | None = None
        if (
            sys.platform == "linux"
        ):  # else blocks that come and go leave holes of a third of what a rank keeps
            mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
            if mallopt is not None:
                mallopt(M_MMAP_THRESHOLD, MEGABYTE)

    def fetch(self, block: int) -> None:
        """Fill the weights of a block."""
        raise NotImplementedError

    def release(self, block: int) -> None:
        """Empty the weights of a block."""
        raise NotImplementedError

    def hold(self, block: int) -> None:
        """Have the weights of one block, and of no other."""
        if self.held == block:
            return
        if self.held is not None:
            held, self.held = self.held, None
            self.release(held)
        self.fetch(block)
        self.held = block

    def watch(self, number: int, block: nn.Module) -> None:
        """Hold a block whenever it, or a copy of it made from now on, runs or is differentiated."""

        # Plain functions: a copy of the block keeps these, and so this object.
        def before(*_: Any) -> None:
            self.hold(number)

        def after(_: nn.Module, __: Any, out: Any) -> None:
            hidden: Tensor = out[0] if isinstance(out, tuple) else out
            if torch.is_grad_enabled() and hidden.requires_grad:
                # What follows the block has been differentiated by then, and nothing of the block has.
                hidden.register_hook(lambda _: self.hold(number))  # type: ignore[no-untyped-call]

        block.register_forward_pre_hook(before)
        block.register_forward_hook(after)
