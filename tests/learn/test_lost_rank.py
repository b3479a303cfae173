"""What ends one rank is what the others report: two real processes, of which the second fails in its own way."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch.distributed as dist

from sflam.errors import NotFiniteError, RanksError
from sflam.learn.world.process_group import ProcessGroup

FAILING = """
import os, sys
import torch.distributed as dist
from sflam.errors import NotFiniteError
from sflam.learn.world.process_group import ProcessGroup

world = ProcessGroup(dist.TCPStore("127.0.0.1", int(sys.argv[1])), 1, 2, 2)
assert world.first() == {"order": "go"}
how = sys.argv[2]
if how == "killed":
    os.kill(os.getpid(), 9)
error = NotFiniteError("token 3 ranges from nan to nan") if how == "diverged" else KeyError("a bug")
error.devices = (1, 4)
world.fail(error)
"""


@pytest.fixture
def world_of():
    """Return a function that starts the second rank, which fails in some way, and returns the first."""
    running = []

    def of(how):
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        command = [sys.executable, "-c", FAILING, str(store.port), how]
        running.append(subprocess.Popen(command, env=os.environ | {"TORCH_CPP_LOG_LEVEL": "ERROR"}))
        return ProcessGroup(store, 0, 2, 2)

    yield of
    for process in running:
        process.wait(60)
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.mark.parametrize(
    ("how", "kind", "text", "devices"),
    [
        ("diverged", NotFiniteError, "token 3 ranges from nan to nan", (1, 4)),
        ("a bug", RanksError, "rank 1 of 2 failed (KeyError: 'a bug')", ()),
        ("killed", RanksError, "rank 1 of 2 ended without a word", ()),
    ],
)
def test_the_reason_of_a_rank_that_ends_is_raised_at_the_others(world_of, how, kind, text, devices):
    world = world_of(how)
    world.first({"order": "go"})
    with pytest.raises(kind) as raised:
        world.gather({"more": 1})
    assert str(raised.value) == text and tuple(getattr(raised.value, "devices", ())) == devices
    assert getattr(raised.value, "ended", ()) == ((1,) if how == "killed" else ())
