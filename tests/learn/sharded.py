"""A program that trains on shared-out trunks, every rank as many steps as it likes.

torchrun --nproc-per-node N -m tests.learn.sharded FOLDER KIND...     # FOLDER/KIND is a model; writes FOLDER/KIND.R.pt
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from sflam.learn.world.process_group import ProcessGroup
from sflam.model.families import blocks_of
from sflam.run.ranks import _of_torchrun
from tests.model.placed import CUT, MEMORY, halves_of, opened, trained

RANKS = replace(MEMORY, trunk_weights="ranks")


def steps(rank: int) -> list[int]:
    """The rows of each step of a rank: unlike in number."""
    return [[5], [4, 5, 3], []][rank % 3]


def main(folder: Path, kinds: list[str]) -> None:
    """Train on every model, and write what came out and how many bytes of each block this rank keeps."""
    torch.set_num_threads(1)
    world: ProcessGroup = _of_torchrun()
    for kind in kinds:
        task = "causal-lm" if kind.endswith("-lm") else None
        how = {"name": str(folder / kind), "task": task, "dtype": "float64"}
        backbone = opened(how, RANKS, world)
        halves = halves_of(backbone)
        found = [trained(halves, kind, checkpointing=True, rows=rows) for rows in steps(world.rank)]
        order = world.gather(world.rank)  # whoever is done waits here, and lends its share until all are
        blocks = blocks_of(backbone.model, backbone.family)[CUT:]
        frozen = [[p for name, p in block.named_parameters() if "lora_" not in name] for block in blocks]
        held = [sum(p.untyped_storage().size() for p in own) for own in frozen]
        whole = sum(p.nbytes for own in frozen for p in own)
        facts = {
            "steps": found,
            "order": order,
            "held": held,
            "elsewhere": backbone.elsewhere,
            "whole": whole,
        }
        torch.save(facts, folder / f"{kind}.{world.rank}.pt")
    world.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
