"""Server blocks whose frozen weights are shared out over the ranks: each keeps its rows of every matrix (FSDP2).

A block is gathered by all ranks when one of them is to run it. Ranks need not run the same blocks at the same time:
before a gathering each says which block it wants next, if any, and one that most of them want is gathered. A rank that
is done with its own work takes part until all are, before it exchanges anything else (:attr:`ProcessGroup.idle`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from sflam.errors import ConfigError
from sflam.learn.world.process_group import ProcessGroup
from sflam.model.fetched_blocks import FetchedBlocks
from sflam.model.weight_files import StoredTensor, place

NONE = -1
"""A rank wants no block."""


class ShardedBlocks(FetchedBlocks):
    """Blocks of which this rank keeps a share.

    Args:
        stored: block -> name inside it -> where it is stored; only this rank's rows are read.
        shapes: of the same tensors.
        dtype: of the arithmetic.
        device: where they run.
        world: the ranks.

    Raises:
        ConfigError: ranks share a GPU.
    """

    def __init__(
        self,
        stored: Mapping[int, Mapping[str, StoredTensor]],
        shapes: Mapping[int, Mapping[str, torch.Size]],
        dtype: torch.dtype,
        device: torch.device,
        world: ProcessGroup,
    ) -> None:
        super().__init__()
        if device.type == "cuda" and not world.gpus:
            raise ConfigError(
                f'model.trunk_weights = "ranks" needs a GPU for each of the {world.size} ranks of a host; start fewer, '
                'or set learn.device = "cpu"'
            )
        self.world = world
        with world.watched():
            mesh = DeviceMesh(device.type, list(range(world.size)))
        self._shares: dict[int, _Share] = {}
        self._weights: dict[int, dict[str, nn.Parameter]] = {}
        for number, names in stored.items():
            share = _Share(shapes[number], dtype)
            fully_shard(share, mesh=mesh, reshard_after_forward=True)
            share.to_empty(device=device)
            share.read(list(names.values()), world.rank, world.size)
            self._shares[number] = share
            self._gather(number)
            self._weights[number] = dict(zip(names, share.parameters(), strict=True))
            self.release(number)
        every = [sum(weight.nbytes for weight in own.values()) for own in self._weights.values()]
        own = -(-sum(every) // world.size)
        self.elsewhere = max(0, sum(every) - own - max(every, default=0))
        world.idle = self.attend

    def install(self, blocks: nn.ModuleList) -> None:
        """Put the weights into the blocks of a model."""
        for number, weights in self._weights.items():
            place(blocks[number], weights)
            self.watch(number, blocks[number])

    def fetch(self, block: int) -> None:
        """Gather a block, and those that other ranks want sooner."""
        while self._turn(block) != block:
            pass

    def release(self, block: int) -> None:
        """Keep this rank's share alone."""
        self._module(block).reshard()

    def attend(self) -> None:
        """Take part until no rank wants a block."""
        while self._turn(NONE) != NONE:
            pass

    def _turn(self, wish: int) -> int:
        """Gather the block that most ranks want, and keep it if it is the ``wish``; return it, or ``NONE``."""
        wishes = [block for block in self.world.each(wish) if block != NONE]
        if not wishes:
            return NONE
        block = max(wishes, key=wishes.count)  # the first of several: that of the lowest rank
        if block == self.held:
            self.release(block)
        self._gather(block)
        if block not in (wish, self.held):
            self.release(block)
        return block

    def _gather(self, block: int) -> None:
        with self.world.watched():
            self._module(block).unshard()

    def _module(self, block: int) -> FSDPModule:
        share = self._shares[block]
        assert isinstance(share, FSDPModule)
        return share


class _Share(nn.Module):
    """The weights of a block, for FSDP2 to shard: parameters and nothing else."""

    def __init__(self, shapes: Mapping[str, torch.Size], dtype: torch.dtype) -> None:
        super().__init__()
        for index, shape in enumerate(shapes.values()):
            empty = torch.empty(shape, dtype=dtype, device="meta")
            self.register_parameter(str(index), nn.Parameter(empty, requires_grad=False))

    def read(self, stored: list[StoredTensor], rank: int, size: int) -> None:
        """Read a rank's rows of every weight."""
        for where, weight in zip(stored, self.parameters(), strict=True):
            assert isinstance(weight, DTensor)
            own = weight.to_local()
            start = rank * -(-weight.shape[0] // size)  # as torch.chunk
            if len(own):  # else there are fewer rows than ranks
                own.copy_(where.rows(start, start + len(own)))
