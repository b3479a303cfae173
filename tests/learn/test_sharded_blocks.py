"""``model.trunk_weights = "ranks"``: a trunk that ranks share out computes what one in memory does, bit for bit."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tests.learn import sharded
from tests.model.placed import MEMORY, halves_of, opened, saved, trained
from tests.tiny import EVERY_KIND, KINDS


def run(folder, ranks, kinds):
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    done = subprocess.run(
        [*words, "-m", "tests.learn.sharded", str(folder), *kinds],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("ranks", "kinds"),
    [
        pytest.param(2, KINDS, id="2"),
        pytest.param(3, EVERY_KIND, id="3-every-family", marks=pytest.mark.slow),
        # of eight rows the fifth rank has none
        pytest.param(5, ("qwen3-lm",), id="5-with-fewer-rows", marks=pytest.mark.slow),
    ],
)
def test_ranks_that_share_a_trunk_compute_what_one_process_does(tmp_path, ranks, kinds):
    # In another type than the model runs in, so that the weights in memory are aligned as gathered ones are.
    hows = {kind: saved(kind, tmp_path / kind, torch.float32) for kind in kinds}
    run(tmp_path, ranks, kinds)
    for kind in kinds:
        halves = halves_of(opened(hows[kind], MEMORY))
        for rank in range(ranks):
            found = torch.load(tmp_path / f"{kind}.{rank}.pt", weights_only=True)
            assert found["order"] == list(range(ranks))
            assert len(found["steps"]) == len(sharded.steps(rank))
            for rows, step in zip(sharded.steps(rank), found["steps"], strict=True):
                wanted = trained(halves, kind, checkpointing=True, rows=rows)
                for name, tensor in wanted.items():
                    assert torch.equal(step[name], tensor), (kind, rank, name)
            assert sum(map(bool, found["held"])) <= 1, "the weights of one block are there at a time"
            assert found["elsewhere"] < found["whole"]
