"""A run whose devices keep parts of their own: resumed bit-equal, written one by one, and predicted with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file

import sflam
from sflam import config
from sflam.errors import ConfigError, RunError
from sflam.model.adapters import state_of
from sflam.run.assemble import assemble

OWN = (
    "learn.rounds=3",
    "fleet.devices=3",
    "data.partition=dirichlet",
    "data.alpha=0.1",
    "learn.canonical=true",
)


def job(small: tuple[str, ...], *more: str) -> config.Job:
    return config.load(None, [*small, *OWN, *more])


@pytest.fixture(scope="module")
def run(small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("personal") / "run"
    sflam.train(job(small, "learn.personal=head", "learn.state=keep"), folder)
    return folder


def test_a_run_that_is_resumed_ends_the_same(small: tuple[str, ...], run: Path, tmp_path: Path) -> None:
    begun = sflam.start(job(small, "learn.personal=head", "learn.state=keep"), tmp_path / "run")
    next(begun.rounds())
    resumed = sflam.resume(tmp_path / "run")
    assert len(resumed.records) == 1
    list(resumed.rounds())
    resumed.finish()
    names = sorted(
        path.relative_to(run) for path in run.glob("*/*.safetensors") if "checkpoints" not in path.parts
    )
    assert len(names) == 4, "the adapter, and a file for each device"
    for name in names:
        first, second = load_file(run / name), load_file(tmp_path / "run" / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(second[key], tensor) for key, tensor in first.items()), name


def test_figures_are_of_the_devices_own_models(small: tuple[str, ...], run: Path) -> None:
    """The result against each device's model, put together by peft alone and asked for the held-out samples."""
    result = json.loads((run / "result.json").read_text())
    record = json.loads((run / "history.jsonl").read_text().splitlines()[-1])
    accuracy = []
    for device in range(3):
        found = sflam.predict(run, device=device)
        accuracy.append(found.accuracy)
        assert found.notes[-1] == f"this is the model of device {device}"
        shares = record["device_class_accuracy"][device]
        assert {
            name: share for name, share in zip(result["classes"], shares, strict=True) if share is not None
        } == (pytest.approx(found.per_class))
    assert result["accuracy"] == record["accuracy"] == pytest.approx(np.mean(accuracy))
    assert len(set(accuracy)) > 1
    parts = assemble(job(small)).parts
    train = assemble(job(small)).splits.train
    expected = []
    for part, shares in zip(parts, record["device_class_accuracy"], strict=True):
        known = [label for label in train.labels[part] if shares[label] is not None]
        expected.append(np.mean([shares[label] for label in known]))
    assert result["device_accuracy"] == pytest.approx(expected)
    assert result["worst_device_accuracy"] == pytest.approx(min(expected))


def test_peft_loads_a_device_s_part_on_the_shared_adapter(small: tuple[str, ...], run: Path) -> None:
    """As the card beside the adapter says."""
    card = (run / "adapter" / "README.md").read_text()
    assert "set_peft_model_state_dict" in card and "personal/device-0.safetensors" in card
    assembly = assemble(job(small))
    base = assembly.model.unload()
    model = PeftModel.from_pretrained(base, str(run / "adapter"))
    start, own = state_of(model), load_file(run / "personal" / "device-1.safetensors")
    set_peft_model_state_dict(model, own)
    for name, tensor in state_of(model).items():
        assert torch.equal(tensor, own.get(name, start[name])), name
        assert (name in own) == ("classifier" in name)
        if name in own:
            assert torch.equal(start[name], assembly.state[name]), "the shared adapter has the start values"


def test_the_shared_adapter_predicts_with_a_note(run: Path) -> None:
    assert "start values" in sflam.predict(run).notes[-1]


def test_devices_without_a_model_are_refused(run: Path, finished: Path) -> None:
    with pytest.raises(ConfigError, match="between 0 and 2"):
        sflam.predict(run, device=3)
    with pytest.raises(ConfigError, match="no model of its own"):
        sflam.predict(finished, device=0)


def test_a_damaged_part_is_refused(small: tuple[str, ...], tmp_path: Path) -> None:
    sflam.train(job(small, "learn.personal=head", "learn.rounds=1", "fleet.selected=1"), tmp_path / "run")
    (path,) = (tmp_path / "run" / "personal").iterdir()
    device = int(path.stem.partition("-")[2])
    assert "never trained" in sflam.predict(tmp_path / "run", device=(device + 1) % 3).notes[-1]
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(RunError, match="cannot be loaded"):
        sflam.predict(tmp_path / "run", device=device)


def test_merging_is_refused(small: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no one model to merge"):
        sflam.train(job(small, "learn.personal=head", "learn.rounds=1"), tmp_path / "run", merge=True)


@pytest.mark.parametrize("method", ["fedlora", "sflam"])
def test_a_simulated_run_sends_less(small: tuple[str, ...], method: str, tmp_path: Path) -> None:
    """Plans and charges know what stays at home: a round's energy falls with what is not sent."""
    network = ("network.simulate=true", "learn.rounds=1", f"learn.method={method}", "plan.method=equal")
    labels = ("model.labels=device",) if method == "sflam" else ()
    joules = {
        kind: sflam.train(job(small, *network, *labels, f"learn.personal={kind}"), tmp_path / kind).energy_j
        for kind in ("none", "head")
    }
    assert joules["head"] < joules["none"]


def test_ranks_of_devices_are_reported(small: tuple[str, ...], tmp_path: Path) -> None:
    ranks = ("learn.rounds=1", "model.rank=3", "fleet.ranks=[1,2,3]")
    result = sflam.train(job(small, *ranks), tmp_path / "ranks")
    plain = sflam.train(job(small, *ranks[:2]), tmp_path / "plain")
    assert result.bytes_up < plain.bytes_up
    assert "3, per device: 1, 2, 3" in (tmp_path / "ranks" / "adapter" / "README.md").read_text()
