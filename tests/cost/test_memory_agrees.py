"""One memory model: what is planned, noted before, reported after and shared out by a comparison is one number."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import sflam
from sflam import config
from sflam.compare.capacity import LIBRARY, bytes_of
from sflam.cost import memory
from sflam.cost.measure import measure
from sflam.cost.training import Training
from sflam.data.images import ImageSpec
from sflam.errors import ConfigError
from sflam.learn.examples import Examples
from sflam.learn.fit import fit
from sflam.model.adapters import attach, state_of
from sflam.model.settings import ModelSettings
from sflam.plan import ALL_LOCAL
from sflam.planner.cell import workload_of
from tests.learn.builders import LEARN, dataset, local_fleet, parts_of
from tests.tiny import CLASSES, DEPTH, EVERY_KIND, batch, is_image, is_lm, tiny

TOKENS, RANK = 10, 3
CHOICES = (
    {},
    {"checkpointing": True, "batch": 7},
    {"optimizer": "sgd", "batch": 1},
    {"optimizer": "sgd", "momentum": 0.9, "checkpointing": True},
    {"aggregation": "freeze-a"},
)


class Both:
    """A tiny model planned from its config.json alone, and built."""

    def __init__(self, kind, folder, dropout=0.0):
        self.backbone = tiny(kind, dtype=torch.float32, dropout=dropout)
        plain = json.loads(self.backbone.model.config.to_json_string(use_diff=False))
        (folder / "config.json").write_text(json.dumps(plain))
        self.kind, self.folder = kind, folder
        self.tokens = 0 if is_image(kind) else TOKENS
        self.model = attach(self.backbone, ModelSettings(rank=RANK))
        spec = ImageSpec(size=16, channels=1, mean=(0.5,), std=(0.5,)) if is_image(kind) else None
        self.examples = Examples(dataset(kind), self.backbone, spec)

    def fleet(self, cut, labels="server", servers=(), learn=LEARN):
        options = {"cut": cut, "labels": labels, "servers": servers, "learn": learn}
        return local_fleet(self.backbone, self.model, self.examples, parts_of([8]), **options)

    def noted(self, fleet, learn):
        """Return the memory of the device as the note before a run and the report have it."""
        sample = (
            {name: t[:1].float() for name, t in batch(self.kind)["inputs"].items()} if not self.tokens else {}
        )
        return fit(fleet, self.backbone, sample, self.tokens, learn).device

    def planned(self, labels, learn):
        """Return the workload that a plan has."""
        training = Training(
            batch=learn.batch,
            tokens=self.tokens,
            rank=RANK,
            classes=CLASSES,
            task="causal-lm" if is_lm(self.kind) else "classification",
            trained_head=bool(self.backbone.fresh),
            optimizer_slots=learn.optimizer_slots,
            labels_home=labels == "device",
            checkpointing=learn.checkpointing,
            frozen_a=learn.aggregation == "freeze-a",
            frozen_half=learn.device_half == "frozen",
        )
        return measure(str(self.folder), training)


@pytest.mark.parametrize("labels", ["server", "device"])
@pytest.mark.parametrize("kind", EVERY_KIND)
def test_plan_and_note_agree_at_every_cut(kind, labels, tmp_path):
    both = Both(kind, tmp_path)
    plain, frozen = LEARN, replace(LEARN, aggregation="freeze-a")
    for cut in range(DEPTH + 1):
        fleets = {learn.aggregation: both.fleet(cut, labels, learn=learn) for learn in (plain, frozen)}
        for choice in CHOICES:
            learn = replace(LEARN, **choice)
            noted = both.noted(fleets[learn.aggregation], learn)
            assert noted.total == both.planned(labels, learn).device_memory[cut], (cut, choice)


@pytest.mark.parametrize("labels", ["server", "device"])
@pytest.mark.parametrize("kind", EVERY_KIND)
def test_plan_and_note_agree_on_a_frozen_half_at_every_cut(kind, labels, tmp_path):
    both, trained = Both(kind, tmp_path), []
    for cut in range(DEPTH + 1):
        learn = replace(LEARN, device_half="frozen", checkpointing=cut == 2)
        if cut == DEPTH and kind.endswith("-lm"):  # its head is that of the words, which is not trained
            with pytest.raises(ConfigError, match="nothing is trained"):
                both.fleet(cut, labels, learn=learn)
            continue
        fleet = both.fleet(cut, labels, learn=learn)
        noted, plan = both.noted(fleet, learn), both.planned(labels, learn)
        assert noted.total == plan.device_memory[cut], cut
        trained.append(noted.trained)
        assert plan.adapter_values[cut] == plan.adapter_values[0]
        assert noted.total < both.planned(labels, LEARN).device_memory[cut] or not cut
        step = both.planned(labels, replace(LEARN, device_half="trained"))
        assert plan.device_forward[cut] == step.device_forward[cut]
        assert plan.device_backward[cut] == step.device_backward[0]  # of the head, where that is at home
    assert len(set(trained)) == 1  # the head's, where that is at home


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_plan_and_note_agree_with_dropout_and_for_a_device_that_trains_alone(kind, tmp_path):
    both = Both(kind, tmp_path, dropout=0.1)
    planned = both.planned("server", LEARN)
    assert both.noted(both.fleet(1), LEARN).total == planned.device_memory[1]
    alone = both.fleet(1, servers=(ALL_LOCAL,))
    assert both.noted(alone, LEARN).total == planned.whole_memory > planned.device_memory[-1]


@pytest.mark.parametrize("method", ["fedlora", "local"])
@pytest.mark.parametrize("aggregation", ["fedavg", "freeze-a"])
def test_a_device_with_the_whole_model_needs_the_whole_memory(method, aggregation, small, tmp_path):
    job = config.load(None, [*small, f'learn.method="{method}"', f'learn.aggregation="{aggregation}"'])
    run = sflam.start(job, tmp_path / "run")
    assert run.assembly.fit.device.total == workload_of(job).whole_memory


@pytest.mark.parametrize("cut", [0, 1, 3])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("labels", ["server", "device"])
def test_plan_note_and_report_agree_on_a_job(cut, checkpointing, labels, small, tmp_path):
    asked = [*small, f"model.cut={cut}", f"learn.checkpointing={checkpointing}".lower()]
    job = config.load(None, [*asked, f'model.labels="{labels}"', "learn.rounds=1"])
    run = sflam.start(job, tmp_path / "run")
    for _ in run.rounds():
        pass
    assert run.finish().device_memory == workload_of(job).device_memory[cut]
    assert run.assembly.fit.device.total == workload_of(job).device_memory[cut]


def test_a_comparison_shares_out_the_same_memory(small):
    job = config.load(None, small)
    at_once = config.load(None, [*small, "fleet.devices=1", "fleet.selected=0"])
    assert bytes_of(at_once) == LIBRARY + workload_of(job).whole_memory
    lean = config.load(None, [*small, "learn.checkpointing=true"])
    assert bytes_of(lean) < bytes_of(job)


def test_a_frozen_embedding_keeps_nothing_for_a_backward():
    """ViT-B/16, cut 0, 32 images: what leaves it and what its forward works with, whatever is checkpointed."""
    for checkpointing in (False, True):
        costs = measure(
            "google/vit-base-patch16-224", Training(batch=32, checkpointing=checkpointing, classes=1000)
        )
        assert costs.device_memory[0] == 4 * 742_656 + 4 * 32 * 197 * 3 * 768


def test_every_user_of_the_formula_moves_with_it(small, tmp_path, monkeypatch):
    job = config.load(None, small)
    before = workload_of(job).device_memory[1], sflam.start(job, tmp_path / "a").assembly.fit.device.total
    assert before[0] == before[1]
    shared = bytes_of(job)
    plain = memory._kept_per_token
    monkeypatch.setattr(memory, "_kept_per_token", lambda step: 2 * plain(step))
    after = workload_of(job).device_memory[1], sflam.start(job, tmp_path / "b").assembly.fit.device.total
    assert after[0] == after[1] > before[0] and bytes_of(job) > shared


@pytest.mark.parametrize("method", ["sflam", "sflam-mixed"])
def test_plan_note_and_report_agree_on_shares_that_are_drawn(method, small, tmp_path):
    """A device may have all rows of a step, as far as it has so many; the planner leaves room for them."""
    asked = ("learn.rounds=1", "data.sampling=global", "learn.batch=2", "network.simulate=true")
    run = sflam.start(config.load(None, [*small, *asked, f"learn.method={method}"]), tmp_path / "run")
    held = max(len(part) for part in run.fleet.halves.parts)
    assert held > 2 * 3 == run.job.learn.batch * run.job.fleet.devices, "or the test shows nothing"
    noted = run.assembly.fit.device.total
    assert noted == run.fleet.planner.workload.device_memory[run.job.model.cut]
    like = config.load(None, [*small, "learn.batch=6"])
    assert noted == workload_of(like).device_memory[like.model.cut]
    list(run.rounds())
    assert run.finish().device_memory == noted


def kept_bytes(trunk, monkeypatch):
    """Return a list that will hold what autograd keeps of each of a trunk's passes, beside weights, in bytes."""
    found, differentiate = [], trunk.differentiate
    weights = {p.untyped_storage().data_ptr() for p in trunk.segment.parameters()}
    weights |= {trunk.segment.stack.values.untyped_storage().data_ptr()}

    def counting(*arguments):
        seen = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            answers = differentiate(*arguments)
        found.append(sum(seen.values()))
        return answers

    monkeypatch.setattr(trunk, "differentiate", counting)
    return found


def test_a_mixed_trunk_holds_the_graph_of_one_row_of_each_device(monkeypatch, tmp_path):
    both, rows, devices = Both("vit", tmp_path), 4, 3
    measured, counted = {}, {}
    groups = {"batched": 1, "mixed": rows, "sequential": devices, "pairs": 2}
    for update, count in groups.items():
        chosen = {"server_batch": 2 * devices} if update == "pairs" else {"server_update": update}
        learn = replace(LEARN, method="sflam-mixed", rounds=1, local_steps=1, batch=rows, **chosen)
        fleet = local_fleet(
            both.backbone, both.model, both.examples, parts_of([8] * devices), cut=0, learn=learn
        )
        found = kept_bytes(fleet.servers.trunks[0], monkeypatch)
        fleet.download(0, (0, 1, 2), state_of(both.model))
        fleet.local_steps(0, (0, 1, 2))
        assert len(found) == count
        measured[update] = max(found)
        sample = {name: t[:1].float() for name, t in batch("vit")["inputs"].items()}
        noted = fit(fleet, both.backbone, sample, 0, learn)
        counted[update] = noted.server.activations
        assert noted.process.activations > noted.server.activations
    assert measured["mixed"] * rows == pytest.approx(measured["batched"], rel=0.05)
    assert measured["pairs"] * 2 == pytest.approx(measured["batched"], rel=0.05)
    assert measured["sequential"] * devices == pytest.approx(measured["batched"], rel=0.05)
    assert counted["sequential"] * devices == counted["batched"]
    # What came and goes back in the step: tokens of 16 + 1 patches, float32.
    width = both.backbone.model.config.hidden_size
    frames = (
        2 * devices * rows * fleet.examples.take(np.arange(1)).inputs["pixel_values"].shape[0] * width * 4
    )
    assert counted["pairs"] - counted["mixed"] == counted["batched"] // 2 - counted["batched"] // rows
    tokens = (counted["mixed"] - counted["batched"] // rows) // frames
    assert counted["mixed"] == counted["batched"] // rows + tokens * frames and tokens == 17
