"""The number of ranks changes nothing about a run: real processes over gloo, tiny models."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from sflam.model.backbone import quiet
from tests.learn.builders import assert_equal_states
from tests.reviews import write_reviews
from tests.run import ranked
from tests.tiny import tiny

ROOM = (
    "learn.rounds=3",
    "learn.batch=4",
    "fleet.devices=6",
    "model.rank=2",
    "learn.device=cpu",
    "data.alpha=1",
)
KEPT = (*ROOM, "learn.state=keep", "fleet.selected=5", "learn.local_steps=3")
BITS = ("quant.bits_up=4", "quant.bits_down=4", "quant.bits_adapters=8")
CANONICAL, DOUBLE = "learn.canonical=true", "model.dtype=float64"
NOISY = ("privacy.clip=5", "privacy.noise=0.1", "privacy.sample_clip=0.1", "privacy.sample_noise=1")
HOME = ("privacy.clip_gradients=0.1", "privacy.clip_loss=2", "privacy.noise_loss=1")
PASSES = "learn.memory_gb=0.0005"
"""So little that a step takes several passes, which ranks then share."""

BIT_EQUAL = {
    "sflam": (*ROOM, *BITS),
    "sflam kept": (*KEPT, *BITS),
    "sflam in passes": (*ROOM, *BITS, PASSES),
    "cuts": (*KEPT, *BITS, "fleet.cuts=[0,1,2,3,1,2]"),
    "mixed": (*ROOM, *BITS, "learn.method=sflam-mixed"),
    "mixed in passes": (*KEPT, "learn.method=sflam-mixed", "learn.server_batch=20", PASSES),
    "one trunk": (*KEPT, *BITS, "learn.method=sfl-v2"),
    "dropout": (*ROOM, "model.dropout=0.1"),
    "head of one's own": (*KEPT, "learn.personal=head"),
    "memory of the quantizer": (*KEPT, "quant.scheme=topk", "quant.bits_up=4", "quant.bits_down=4"),
    "simulated": (*ROOM, "network.simulate=true"),
    "samples clipped": (*ROOM, *NOISY, "data.draw=poisson"),
}
EQUAL = {
    "apart": KEPT,
    "together": (*KEPT, "learn.method=sflam-mixed"),
    "by samples": (*ROOM, "learn.method=sflam-mixed", "data.sampling=local"),
    "batched": (*ROOM, "learn.method=sfl-v2", "learn.server_update=batched", "learn.weights=samples"),
    "sequential": (*KEPT, "learn.method=sfl-v2"),
    "at home": (*ROOM, "model.labels=device"),
    "trunk over ranks": (*KEPT, PASSES, "learn.checkpointing=true", "model.trunk_weights=ranks"),
    "one trunk over ranks": (*ROOM, "learn.method=sflam-mixed", "model.cut=0", "model.trunk_weights=ranks"),
    "at home over ranks": (*ROOM, PASSES, "model.labels=device", "model.trunk_weights=ranks"),
    "samples clipped at home": (*ROOM, *NOISY, "model.labels=device", *HOME),
    "servers": (*ROOM, "fleet.servers=[0,1,-1,1,0,0]", "fleet.cuts=[1,2,1,1,0,1]"),
}
QUICK = ("sflam kept", "mixed in passes", "apart", "together", "trunk over ranks")
"""What is run without ``slow``, on two ranks."""
TEXTS = {"texts": (*BITS, CANONICAL), "texts apart": (DOUBLE,)}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory, unrendered):
    folder = tmp_path_factory.mktemp("ranks")
    with quiet():
        tiny("vit", dtype=torch.float32).model.save_pretrained(folder / "vit")
    whole = load_digits()
    images = (whole.images * (255 / 16)).round().astype(np.uint8)[..., np.newaxis]
    np.savez(folder / "digits.npz", image=images[:300], label=whole.target[:300])
    write_reviews(folder)
    vit = (f"model.name={folder / 'vit'}", f"data.name={folder / 'digits.npz'}")
    bert = (f"model.name={folder / 'bert'}", f"data.name={folder / 'reviews.csv'}", "model.dropout=0")
    return {
        **{name: (*vit, *own, CANONICAL) for name, own in BIT_EQUAL.items()},
        **{name: (*vit, *own, DOUBLE) for name, own in EQUAL.items()},
        **{name: (*bert, *KEPT, *own) for name, own in TEXTS.items()},
    }


@pytest.fixture(scope="module")
def runs(jobs, tmp_path_factory):
    """Return the folder of what so many ranks trained."""
    done = {}

    def of(size, name):
        quick = name in QUICK and size <= 2
        if (size, quick) not in done:
            done[size, quick] = folder = tmp_path_factory.mktemp(f"ranks-{size}")
            chosen = {name: own for name, own in jobs.items() if size > 2 or (name in QUICK) == quick}
            (folder / "jobs.json").write_text(json.dumps(chosen))
            if size == 1:
                ranked.main(1, folder)
            else:
                command = [sys.executable, "-m", "tests.run.ranked", str(size), str(folder)]
                found = subprocess.run(command, capture_output=True, text=True, timeout=600)
                assert found.returncode == 0, found.stderr
        return done[size, quick] / name

    return of


def adapters(folder):
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def history(folder):
    """Return what a history says, but the host's seconds, and losses that are sums in another order."""
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()[1:]]
    gone = ("seconds", "evaluating_s", "planning_s", "measuring_s", "loss")
    return [{key: value for key, value in line.items() if key not in gone} for line in lines]


def cases(names):
    """Return every name on two ranks and on four; few of them are quick."""
    slow = pytest.mark.slow
    two = [pytest.param(name, 2, marks=[] if name in QUICK else slow, id=f"{name}-2") for name in names]
    return [*two, *(pytest.param(name, 4, marks=slow, id=f"{name}-4") for name in names)]


@pytest.mark.parametrize(("name", "size"), cases([*BIT_EQUAL, "texts"]))
def test_canonical_runs_are_bit_equal(runs, name, size):
    alone, found = runs(1, name), runs(size, name)
    wanted = adapters(alone)
    assert {n: t.tolist() for n, t in adapters(found).items()} == {n: t.tolist() for n, t in wanted.items()}
    assert history(found) == history(alone)
    assert (found / "config.toml").read_text() == (alone / "config.toml").read_text()


@pytest.mark.parametrize(("name", "size"), cases([*EQUAL, "texts apart"]))
def test_runs_are_equal_in_double_precision(runs, name, size):
    assert_equal_states(adapters(runs(size, name)), adapters(runs(1, name)), 1e-9)
