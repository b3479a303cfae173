"""The memory of a device without torch: of its whole process, and what it says beforehand that it will take."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import transformers

from sflam.model.backbone import quiet
from tests.serve.network import network
from tests.serve.test_served_is_simulated import job_of, sets

BOUND = 68.0
"""Megabytes, generously: 61 were measured."""


def alone(net, *arguments):
    """Run a device in a process that imports nothing of this one's; return its lines."""
    certs = net.folder / "certs"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sflam.device.cli", f"127.0.0.1:{net.port}"),
            *(
                "--token-file",
                net.folder / "token-0",
                "--ca",
                certs / "ca.pem",
                "--folder",
                net.folder / "device",
            ),
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def megabytes(pattern, lines):
    return float(re.search(pattern, lines)[1])


def measured(net, server, *arguments):
    """Return the peak of a device's process, and what it said beforehand, in MB."""
    lines = alone(net, *arguments)
    assert server.wait() == 0, server.lines
    return megabytes(r"peak memory ([\d.]+) MB", lines), megabytes(r"peak about (\d+) MB", lines)


@pytest.mark.slow
def test_a_block_as_wide_as_that_of_vit_b_16(room, tmp_path):
    shape = transformers.ViTConfig(num_hidden_layers=2, num_labels=4)
    with quiet():
        transformers.ViTForImageClassification(shape).save_pretrained(tmp_path / "wide")
    images = np.random.default_rng(0).integers(0, 256, (20, 224, 224, 3)).astype(np.uint8)
    np.savez(tmp_path / "wide.npz", image=images, label=np.arange(20) % 4)
    with network(tmp_path, 1) as net:
        wide = (f"model.name={tmp_path / 'wide'}", f"data.name={tmp_path / 'wide.npz'}", "fleet.devices=1")
        once = ("learn.rounds=1", "learn.local_steps=2", "learn.batch=8", "model.rank=8", "data.test=0.2")
        server = net.serve(*sets(job_of(room, *wide, *once)), "--out", tmp_path / "run", graphs=True)
        peak, said = measured(net, server, "--data", tmp_path / "wide.npz", "--memory", "67")
    assert peak < BOUND and peak < said + 1 and peak > said / 1.15


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["server", "device"])
def test_the_default_model(room, tmp_path, labels):
    job = (
        "fleet.devices=1",
        "data.partition=iid",
        "learn.rounds=1",
        "learn.local_steps=3",
        "learn.device=cpu",
    )
    with network(tmp_path, 1) as net:
        settings = sets((*job, f"model.labels={labels}", "learn.evaluate_every=0"))
        server = net.serve(*settings, "--out", tmp_path / "run", graphs=True)
        peak, said = measured(net, server)
    assert peak < 60.0 and peak < said + 1 and peak > said / 1.15
