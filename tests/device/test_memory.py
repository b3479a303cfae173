"""The memory of a device without torch: of its whole process, and what it says beforehand that it will take."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import transformers

from sflam import config
from sflam.lean_memory import MEGABYTE
from sflam.model.backbone import quiet
from sflam.planner.cell import measured as measured_workload
from tests.serve.network import network, sharing
from tests.serve.test_served_is_simulated import job_of, sets

BOUND = 68.0
"""Megabytes, generously."""


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
            *sharing(arguments),
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


def planned(settings, tokens=0):
    """Return what the plan of such a job and the note before it say a device without torch takes, in MB."""
    job = config.load(None, ("device.runtime=lean", *settings))
    return measured_workload(job, tokens).device_memory[job.model.cut] / MEGABYTE


def taken(folder, settings, *arguments, tokens=0):
    """Return the peak of the process of a job's one device, given the memory that is planned, and that memory."""
    need = planned(settings, tokens)
    with network(folder, 1) as net:
        server = net.serve(*sets(settings), "--out", folder / "run", graphs=True)
        peak, _ = measured(net, server, "--memory", f"{1.15 * need:.1f}", *arguments)
    print(f"planned {need:.1f} MB, measured {peak:.1f} MB")
    return peak, need


ONE = (
    "fleet.devices=1",
    "data.partition=iid",
    "learn.rounds=1",
    "learn.device=cpu",
    "learn.evaluate_every=0",
)
TOKENS = 128


@pytest.mark.slow
@pytest.mark.parametrize("cut", [0, 1, 4])
def test_the_default_model_takes_what_is_planned(tmp_path, cut):
    peak, need = taken(tmp_path, (*ONE, "learn.local_steps=3", f"model.cut={cut}"))
    assert need / 1.15 < peak < need * 1.15


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 12])
def test_vit_b_16_takes_what_is_planned(tmp_path, cut):
    shape = transformers.ViTConfig(num_hidden_layers=max(2, cut), num_labels=4)
    with quiet():
        transformers.ViTForImageClassification(shape).save_pretrained(tmp_path / "wide")
    images = np.random.default_rng(0).integers(0, 256, (40, 224, 224, 3)).astype(np.uint8)
    np.savez(tmp_path / "wide.npz", image=images, label=np.arange(40) % 4)
    named = (f"model.name={tmp_path / 'wide'}", f"data.name={tmp_path / 'wide.npz'}", f"model.cut={cut}")
    few = ("learn.local_steps=1", "learn.batch=32", "model.rank=8", "data.test=0.2")
    peak, need = taken(tmp_path, (*ONE, *named, *few), "--data", tmp_path / "wide.npz")
    assert need / 1.15 < peak < need * 1.15


@pytest.mark.slow
def test_minilm_of_ragged_texts_takes_what_is_planned(tmp_path):
    shape = {"hidden_size": 384, "num_attention_heads": 12, "num_hidden_layers": 3, "intermediate_size": 1536}
    with quiet():
        made = transformers.BertConfig(**shape, num_labels=2)
        transformers.BertForSequenceClassification(made).save_pretrained(tmp_path / "mini")
    rng = np.random.default_rng(0)
    lengths = np.r_[[TOKENS] * 8, rng.integers(4, TOKENS, 72)]
    arrays = {
        "input_ids": rng.integers(5, 1000, (80, TOKENS)),
        "lengths": lengths,
        "label": np.arange(80) % 2,
    }
    np.savez(tmp_path / "texts.npz", **arrays)
    named = (f"model.name={tmp_path / 'mini'}", f"data.name={tmp_path / 'texts.npz'}", "model.cut=2")
    settings = (*ONE, *named, "learn.local_steps=4", "learn.batch=8", "model.rank=8")
    peak, need = taken(tmp_path, settings, "--data", tmp_path / "texts.npz", tokens=TOKENS)
    assert need / 1.15 < peak < need * 1.15


HELD = """
import sys
import numpy as np
from sflam.device.memory import Pages, peak_bytes, resident_bytes, settle
settle()
large = [np.ones(3 << 20, np.uint8) for _ in range(3)]  # what is freed once raises glibc's threshold
del large
small = [np.ones(3 << 20, np.uint8)]
kept = [bytes(1000) for _ in range(100)]
before = resident_bytes()
del small
assert resident_bytes() < before - (2 << 20), "a freed array stays in the heap"
pages = Pages(8 << 20)
assert resident_bytes() < before, "pages that nothing wrote to are resident"
pages.array[::4096] = 1
held = resident_bytes()
pages.give_back()
assert resident_bytes() < held - (7 << 20)
pages.array[:] = 3
assert pages.array[-1] == 3 and peak_bytes() >= held and not len(Pages(0).array)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems give back in their own way")
def test_what_is_freed_is_the_systems():
    subprocess.run([sys.executable, "-c", HELD], check=True)


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
        peak, said = measured(net, server, "--data", tmp_path / "wide.npz", "--memory", "64")
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
