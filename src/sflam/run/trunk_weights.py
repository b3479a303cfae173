"""``model.trunk_weights``: where the frozen weights of a server's blocks are, of a model that a job loads."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch

from sflam.learn.world.world import World
from sflam.model.backbone import TORCH_DTYPES, Backbone
from sflam.model.families import blocks_of
from sflam.model.file_blocks import FileBlocks
from sflam.model.settings import IN_MEMORY, OVER_RANKS, ModelSettings
from sflam.model.weight_files import LeftInFiles

if TYPE_CHECKING:
    from sflam.learn.world.process_group import ProcessGroup
    from sflam.learn.world.sharded_blocks import ShardedBlocks


def left_in_files(settings: ModelSettings, cut: int, device: torch.device) -> LeftInFiles | None:
    """Return which blocks a model is to be loaded without; None for no block. ``cut`` is the deepest of the devices."""
    if settings.trunk_weights == IN_MEMORY:
        return None
    return LeftInFiles(cut, f'model.trunk_weights = "{settings.trunk_weights}"', device)


def install(backbone: Backbone, left: LeftInFiles, settings: ModelSettings, world: World) -> Backbone:
    """Return a model whose blocks, loaded without weights, get them when they are wanted.

    Raises:
        SflamError: they cannot be read, or the ranks cannot share them out.
    """
    dtype, blocks = TORCH_DTYPES[settings.dtype], blocks_of(backbone.model, backbone.family)
    stored = left.stored(backbone.model, backbone.family)
    if settings.trunk_weights == OVER_RANKS and world.size > 1:
        from sflam.learn.world.sharded_blocks import ShardedBlocks

        shapes = {
            number: {name: own.shape for name, own in blocks[number].named_parameters()} for number in stored
        }
        group = cast("ProcessGroup", world)
        found: FileBlocks | ShardedBlocks = ShardedBlocks(stored, shapes, dtype, left.device, group)
    else:
        found = FileBlocks(stored, dtype, left.device)
    found.install(blocks)
    return replace(backbone, elsewhere=found.elsewhere)
