"""End to end: `flwr run` over a SuperLink and SuperNodes with keys of their own gives what `sflam train` does."""

from __future__ import annotations

import json

import pytest

pytest.importorskip(
    "flwr", reason="needs an environment made with constraints-flower.txt and the extra flower"
)

import torch

import sflam
from sflam import config
from sflam.records import history
from tests.flower.federation import federation
from tests.serve.network import adapters_of

pytestmark = pytest.mark.slow

JOB = (
    "fleet.devices=2", "model.name=nano-vit", "data.name=digits", "learn.local_steps=10", "learn.lr=0.003",
    "quant.bits_up=8", "quant.bits_down=8", "seed=0",
)  # fmt: skip
MOMENTUM = """
from flwr.serverapp.strategy import FedAvgM
from sflam.flower.server_app import server_app

app = server_app(FedAvgM(fraction_evaluate=0.0, server_momentum=0.9))
"""
PROXIMAL = """
from flwr.serverapp.strategy import FedProx
from sflam.flower.server_app import server_app

app = server_app(FedProx(fraction_evaluate=0.0, proximal_mu=0.1))
"""


@pytest.fixture(scope="module")
def flower(tmp_path_factory):
    """A SuperLink and two SuperNodes, for the runs of this file one after another."""
    with federation(tmp_path_factory.mktemp("flower")) as one:
        one.node("a")
        one.node("b")
        yield one


def trained(folder, *settings):
    """Return the adapters of `sflam train`."""
    sflam.train(config.load(None, [*JOB, *settings]), folder)
    return adapters_of(folder)


def farthest(one, other):
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def run(flower, folder, *settings):
    """Run the app; return the folder of the run."""
    mine = ("flower.port=0", f'flower.folder="{folder}"', "learn.local_steps=10", *settings)
    assert flower.run(" ".join(mine)) == "finished:completed", flower.lines()[-4000:]
    return flower.folder / folder / "run"


def test_the_adapters_are_those_of_train_bit_for_bit(flower, tmp_path):
    found = run(flower, "plain", "learn.rounds=2")
    wanted = trained(tmp_path / "local", "learn.rounds=2")
    assert farthest(adapters_of(found), wanted) == 0.0
    mine, theirs = (history.read(folder / "history.jsonl")[1] for folder in (found, tmp_path / "local"))
    for name in (
        "participants",
        "loss",
        "accuracy",
        "samples",
        "bytes_up",
        "adapter_bytes_up",
        "device_samples",
    ):
        assert [getattr(one, name) for one in mine] == [getattr(one, name) for one in theirs], name


def test_another_strategy_is_that_of_train_with_its_optimiser(flower, tmp_path):
    plain = trained(tmp_path / "plain", "learn.rounds=2")
    (flower.app / "split/server_app.py").write_text(MOMENTUM)
    found = adapters_of(run(flower, "momentum", "learn.rounds=2"))
    wanted = trained(
        tmp_path / "momentum",
        "learn.rounds=2",
        "learn.server_optimizer=momentum",
        "learn.server_momentum=0.9",
    )
    assert farthest(found, plain) > 1e-3
    assert farthest(found, wanted) < 1e-6


def test_a_strategy_that_wants_more_of_nodes_is_refused(flower):
    (flower.app / "split/server_app.py").write_text(PROXIMAL)
    status = flower.run('flower.port=0 flower.folder="proximal" learn.rounds=1')
    assert status == "finished:failed"
    assert "FedProx wants nodes to follow proximal-mu, which devices of sflam do not" in flower.lines()


def test_a_job_that_cannot_go_through_flower_is_refused(flower):
    (flower.app / "split/server_app.py").write_text(
        "from sflam.flower.server_app import server_app\napp = server_app()\n"
    )
    (flower.folder / "job.toml").write_text('[learn]\naggregation = "freeze-a"\n')
    assert flower.run('flower.port=0 flower.folder="refused" flower.job="job.toml"') == "finished:failed"
    assert 'learn.aggregation = "freeze-a" does not go with sflam in a Flower app' in flower.lines()
    assert not (flower.folder / "refused").exists()


def test_a_run_that_was_stopped_goes_on(flower, tmp_path):
    """Its nodes keep their places, and what they keep themselves, the optimiser's state here."""
    settings = ("learn.rounds=3", 'flower.job="job.toml"', 'flower.folder="stopped"', "learn.local_steps=10")
    (flower.folder / "job.toml").write_text('[learn]\nstate = "keep"\n')
    records = flower.folder / "stopped" / "run" / "history.jsonl"
    flower.when(lambda: done(records), lambda: flower.flwr("stop", flower.number))
    assert flower.run(" ".join((*settings, "flower.port=0"))) == "finished:stopped"
    assert 1 <= done(records) < 3
    found = run(flower, "stopped", "flower.resume=true")
    assert farthest(adapters_of(found), trained(tmp_path, "learn.rounds=3", "learn.state=keep")) == 0.0


def done(records):
    """Return the rounds that a history holds; a line before them says of which job."""
    return max(0, len(records.read_text().splitlines()) - 1) if records.exists() else 0


def test_a_node_that_dies_is_missing_until_it_is_back(tmp_path):
    """Its device sits rounds out; the others go on once there is the quorum, and what it left is not waited for."""
    with federation(tmp_path) as flower:
        flower.node("a")
        flower.node("b")
        records = tmp_path / "lossy" / "run" / "history.jsonl"
        flower.when(lambda: done(records), flower.kill, "b")
        found = run(flower, "lossy", "learn.rounds=4", "flower.quorum=1", "flower.gather=15.0")
        rounds = history.read(found / "history.jsonl")[1]
        nodes = json.loads((tmp_path / "lossy" / "nodes.json").read_text())["devices"]
    assert len(nodes) == 2 and rounds[0].participants == (0, 1)
    assert [len(record.participants) for record in rounds[2:]] == [1, 1]
    assert torch.isfinite(torch.tensor([record.loss for record in rounds])).all()
