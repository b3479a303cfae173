"""Canonical runs give, bit for bit, what they gave before: see :mod:`tests.canonical`."""

from __future__ import annotations

import json

import pytest
import torch
from tests import canonical
from tests.serve.network import network

STORED = json.loads(canonical.STORED.read_text())
JOBS = ["default", "texts", *canonical.VIT]
TOLERANCE = 0.05
"""Relative, for losses on another machine: a last bit that differs moves whole codes of four bits."""


@pytest.fixture(scope="module")
def jobs(tmp_path_factory, unrendered):
    return canonical.jobs(tmp_path_factory.mktemp("canonical"))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_as_before(name, found):
    if (here := canonical.machine()) in STORED:
        assert found == STORED[here][name]
        return
    wanted = next(iter(STORED.values()))[name]
    assert found["loss"] == pytest.approx(wanted["loss"], rel=TOLERANCE)
    if name != "simulated with bits":  # bits follow measured gradients, whose last digits are the machine's
        assert found["bytes"] == wanted["bytes"]


@pytest.mark.parametrize("name", JOBS)
def test_a_run_gives_what_it_gave(jobs, tmp_path, name):
    assert_as_before(name, canonical.trained(jobs[name], tmp_path / "run"))


def test_a_served_run_gives_what_it_gave(jobs, tmp_path):
    with network(tmp_path, 3) as net:
        chosen = [word for setting in jobs["served"] for word in ("--set", setting)]
        server = net.serve(*chosen, "--out", tmp_path / "run")
        joined = [net.join(device) for device in range(3)]
        assert server.wait() == 0, server.lines
        assert [device.wait(20) for device in joined] == [0] * 3
    found, wanted = (
        canonical.digest(tmp_path / "run"),
        canonical.trained(jobs["served"], tmp_path / "here"),
    )
    assert found["adapters"] == wanted["adapters"]
    assert_as_before("served", wanted)


def test_every_run_is_stored():
    for machine, stored in STORED.items():
        assert list(stored) == JOBS, machine
