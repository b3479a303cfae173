"""Devices that share one link to the server: what a served run measures of it, and plans from that."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sflam.model.backbone import quiet
from sflam.network import trace
from sflam.records import history
from tests.serve.network import network
from tests.serve.shaped_link import shared_link

RATE = 8e6
"""bit/s of the link."""
JOB = (
    "fleet.devices=3",
    "learn.rounds=2",
    "learn.local_steps=3",
    "learn.batch=150",
    "learn.device=cpu",
    "learn.evaluate_every=0",
    "data.partition=iid",
    "quant.scheme=identity",
    "model.cut=0",
    "plan.local_steps=3",
)
AIRTIME = ("network.access=airtime", "plan.optimize=[]")


def sets(settings):
    return [word for setting in settings for word in ("--set", setting)]


def made(folder):
    """Write a model that sends much for what it computes, so that the link is busy; return the job's settings."""
    import torch
    import transformers

    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 32}
    config = transformers.ViTConfig(**small, image_size=32, patch_size=4, num_channels=1, num_labels=10)
    with quiet():
        transformers.ViTForImageClassification(config).save_pretrained(folder / "vit")
    return (*JOB, f"model.name={folder / 'vit'}")


def served(folder, job, *more):
    """Serve the job over the link; return its records."""
    folder.mkdir()
    with network(folder) as net:
        server = net.serve(*sets(job), "--out", folder / "run", *more, graphs=True)
        with shared_link(RATE, net.port) as link:
            net.port = link.port
            devices = [net.device(device) for device in range(3)]
            assert server.wait(300) == 0, server.lines[-8:]
            assert [device.wait(60) for device in devices] == [0, 0, 0]
    return history.read(folder / "run" / "history.jsonl")[1]


@pytest.mark.slow
def test_a_plan_from_a_served_run_predicts_the_next_runs_upload(cli, tmp_path):
    job = made(tmp_path)
    served(tmp_path / "first", job)
    measured = trace.read(tmp_path / "first/run/trace.csv")
    assert measured.shares_time and measured.active.all()
    # the total rate of the link, whoever else was on it: not a third of it
    assert np.median(measured.values) == pytest.approx(RATE, rel=0.15)
    crowds = measured.contention
    assert np.median(crowds) > 1.5
    wish = (*job, *AIRTIME, f"network.trace={tmp_path / 'first/run/trace.csv'}")
    planned = cli("plan", *sets(wish), "--round", 1, "--out", tmp_path / "plan")
    assert planned.code == 0, planned.err
    plan = json.loads((tmp_path / "plan/plan.json").read_text())
    assert sum(device["airtime"] for device in plan["devices"]) == pytest.approx(1, rel=1e-9)
    then = served(tmp_path / "then", job, "--plan", tmp_path / "plan/plan.json")
    predicted = np.array([device["transmit_s"] for device in plan["devices"]])
    slots = predicted * [device["airtime"] for device in plan["devices"]]
    found = [record.measured for record in then]
    for measured in found:
        bits = [8 * size for size in measured.bytes_up]
        np.testing.assert_allclose([device["payload_bits"] for device in plan["devices"]], bits, rtol=0.05)
    # of the link's time uploads take what was planned, however busy this machine is
    assert np.median([sum(each.link_s) for each in found]) == pytest.approx(slots.sum(), rel=0.2)
    # a plan's link is in use all the time; while devices compute, others have their slots: so much is known, too
    crowd = np.median([np.mean(each) for each in crowds])
    upload = np.median([np.mean(each.upload_s) for each in found])
    assert upload == pytest.approx(predicted.mean() * crowd / 3, rel=0.2)
    assert upload <= 1.2 * predicted.mean()
