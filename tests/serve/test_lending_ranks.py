"""A server whose trunk is over ranks: rank 0 serves, the others lend their memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import sflam
from sflam.errors import ConfigError
from sflam.run.ranks_check import check_lenders
from tests.serve.network import adapters_of, network
from tests.serve.test_served_is_simulated import FOUR_BITS, job_of, sets, simulated

LENT = (*FOUR_BITS, "model.dtype=float64")  # converted, so that all weights are aligned alike
OVER_RANKS = "model.trunk_weights=ranks"


def lender(server):
    """The process of rank 1, which rank 0 started."""
    pid = server.process.pid
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        (),
        ("model.labels=device",),
        ("learn.method=sflam-mixed",),
        ("privacy.secure_aggregation=true", "quant.adapters_scale=common"),
    ],
)
def test_what_is_served_over_ranks_is_what_is_simulated(room, tmp_path, more):
    settings = job_of(room, *LENT, *more)
    with network(tmp_path) as net:
        server = net.serve(*sets([*settings, OVER_RANKS]), "--ranks", 2, "--out", tmp_path / "run")
        devices = [net.join(device) for device in range(3)]
        assert server.wait() == 0, server.lines
        assert [device.wait(20) for device in devices] == [0] * 3, [device.lines for device in devices]
    found, wanted = adapters_of(tmp_path / "run"), simulated(tmp_path / "local", settings)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.slow
def test_a_rank_that_is_gone_ends_the_server_in_one_line_and_one_rank_goes_on(room, tmp_path):
    settings = job_of(room, *LENT)
    with network(tmp_path) as net:
        server = net.serve(*sets([*settings, OVER_RANKS]), "--ranks", 2, "--out", tmp_path / "run")
        (rank,) = lender(server)
        devices = [net.join(device) for device in range(3)]
        server.wait_for("round 1/")
        os.kill(rank, 9)
        assert server.wait() == 2
        assert "rank 1 of 2 ended without a word" in server.lines[-1], server.lines
        again = net.serve("--resume", tmp_path / "run")
        assert again.wait() == 0, again.lines
        assert [device.wait(20) for device in devices] == [0] * 3, [device.lines for device in devices]
    found, wanted = adapters_of(tmp_path / "run"), simulated(tmp_path / "local", settings)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_ranks_that_have_nothing_to_lend_are_refused():
    with pytest.raises(ConfigError, match=r'"memory" leaves nothing .*set model.trunk_weights = "ranks"'):
        check_lenders(sflam.load(None, []))
