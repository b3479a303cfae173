"""A saved run predicts every device's own samples, with the model that each device has."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import sflam
from sflam import config, registry
from sflam.errors import ConfigError, RunError
from sflam.learn import metrics
from sflam.run.assemble import assemble
from tests.conftest import Cli

OWN = (
    "learn.rounds=1",
    "fleet.devices=3",
    "data.partition=dirichlet",
    "data.alpha=0.1",
    "model.trainable=lora+head",
)


def job(small: tuple[str, ...], *more: str) -> config.Job:
    return config.load(None, [*small, *OWN, *more])


@pytest.fixture(scope="module")
def run(small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("devices") / "run"
    sflam.train(job(small, "learn.personal=head", "data.flipped=0.3"), folder)
    return folder


def saved(folder: Path, data: sflam.data.dataset.Dataset, part: np.ndarray) -> Path:
    """Write a device's samples to a file."""
    names = np.array(data.classes)[data.labels[part]]
    np.savez(folder / "share.npz", image=data.inputs[part], label=names)
    return folder / "share.npz"


def test_each_device_s_own_model_predicts_its_own_samples(
    small: tuple[str, ...], run: Path, tmp_path: Path
) -> None:
    """Against predictions of a file with the device's samples and their true labels, by the device's model."""
    found = sflam.predict(run, per_device=True)
    there = assemble(job(small, "data.flipped=0.3"))
    for each, part in zip(found.devices, there.parts, strict=True):
        file = saved(tmp_path, there.splits.train, part)
        alone = sflam.predict(run, file, device=each.device)
        expected = alone.metrics()
        assert (each.samples, each.accuracy) == (len(part), alone.accuracy)
        assert each.loss == pytest.approx(alone.loss, rel=1e-5)
        assert list(each.metrics) == ["balanced-accuracy", "macro-f1"]
        assert each.metrics["macro-f1"] == pytest.approx(expected["macro_f1"])
    assert len({each.loss for each in found.devices}) == 3
    assert found.metrics() | {"devices": []} == sflam.predict(run).metrics(), "the rest is the shared model's"
    accuracy = [each.accuracy for each in found.devices]
    rows = dict(found.device_rows())
    assert rows["worst"].accuracy == min(accuracy) and rows["best"].accuracy == max(accuracy)
    assert rows["median"].accuracy == np.median(accuracy)
    shown = found._repr_html_()
    assert "3 devices on their own samples" in shown and f"worst: device {rows['worst'].device}" in shown
    titles = [axes.get_title() or axes.get_title("left") for axes in found.draw().axes]
    assert titles[-1] == "devices on their own samples"


@pytest.mark.parametrize("method", ["sflam", "sfl-v2"])
def test_a_device_of_low_rank_has_its_own_components(
    small: tuple[str, ...], tmp_path: Path, method: str
) -> None:
    wanted = job(small, f"learn.method={method}", "fleet.ranks=[1,2,4]", "model.rank=4", "learn.lr=0.05")
    sflam.train(wanted, tmp_path / "run")
    found = sflam.predict(tmp_path / "run", per_device=True)
    there = assemble(wanted)
    whole = [
        sflam.predict(tmp_path / "run", saved(tmp_path, there.splits.train, part)) for part in there.parts
    ]
    assert found.devices[2].loss == pytest.approx(whole[2].loss, rel=1e-5)
    assert abs(found.devices[0].loss - (whole[0].loss or 0)) > 1e-4


def test_a_shared_trunk_keeps_the_rank_of_the_model(small: tuple[str, ...]) -> None:
    from sflam.model.adapters import state_of
    from sflam.records.run_folder import RunFolder
    from sflam.run.device_shares import state_of_device

    for method, kept in (("sflam", False), ("sfl-v2", True)):
        wanted = job(small, f"learn.method={method}", "fleet.ranks=[1,2,4]", "model.rank=4", "model.cut=1")
        there = assemble(wanted)
        state = {name: torch.ones_like(tensor) for name, tensor in state_of(there.model).items()}
        own = state_of_device(RunFolder(Path("nowhere")), wanted, there.backbone, state, 0)
        assert there.halves is not None
        names = [name for name in state if "lora_" in name]
        limited = {name for name in names if there.halves.limited(0, name)}
        assert limited and (limited < set(names)) == kept
        for name in names:
            assert own[name].mean() == (0.25 if name in limited else 1.0), name


def test_the_command_line(cli: Cli, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    shown = cli("predict", run, "--per-device", "--json", "--out", out)
    values = json.loads(shown.out[0])
    assert [each["device"] for each in values["devices"]] == [0, 1, 2]
    assert values["devices_out"] == str(tmp_path / "out-devices.csv")
    with open(values["devices_out"], newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in rows] == [each["accuracy"] for each in values["devices"]]
    assert list(rows[0]) == ["device", "samples", "accuracy", "loss", "balanced-accuracy", "macro-f1"]
    text = "\n".join(cli("predict", run, "--per-device").out)
    assert "3 devices on their own samples" in text and "median" in text


def test_what_cannot_be_known_is_refused(small: tuple[str, ...], run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--data is 'digits'; leave one out"):
        sflam.predict(run, "digits", per_device=True)
    with pytest.raises(ConfigError, match="--device is 1; leave one out"):
        sflam.predict(run, device=1, per_device=True)
    sflam.train(job(small, "learn.method=local"), tmp_path / "run")
    with pytest.raises(RunError, match=r"cannot tell .*trained a model of its own"):
        sflam.predict(tmp_path / "run", per_device=True)
    (tmp_path / "run" / "partition.json").unlink()
    with pytest.raises(RunError, match=r"cannot tell .*no partition\.json"):
        sflam.predict(tmp_path / "run", per_device=True)


def test_a_metric_of_one_s_own_is_shown_beside_the_others(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        metrics.METRICS, "errors", lambda judged: -float((judged.predicted != judged.labels).sum())
    )
    monkeypatch.setitem(registry.OWN["metric"], "errors", __name__)
    own = Path(shutil.copytree(run, tmp_path / "run"))
    text = (own / "config.toml").read_text()
    (own / "config.toml").write_text(text.replace('metric = "accuracy"', 'metric = "errors"'))
    for each in sflam.predict(own, per_device=True).devices:
        assert list(each.metrics) == ["balanced-accuracy", "macro-f1", "errors"]
        assert each.metrics["errors"] == pytest.approx(-each.samples * (1 - each.accuracy))
