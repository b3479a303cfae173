"""The partition of a run is written, found again and used again; what each device trained on is in the history."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import sflam
from sflam import config
from sflam.errors import RunError
from sflam.learn.evaluate import evaluate
from sflam.records import history
from sflam.records.partition import read_partition
from sflam.run.assemble import examples_of
from sflam.run.start import resume, start
from tests.conftest import Cli, assert_refused


def trained(small: tuple[str, ...], folder: Path, *more: str) -> Path:
    sflam.train(config.load(None, (*small, *more)), folder)
    return folder


def of_data(small: tuple[str, ...]) -> Path:
    """Return the path of the data that a job names."""
    return Path(next(item for item in small if item.startswith("data.name=")).partition("=")[2])


def test_a_run_keeps_its_partition(finished: Path) -> None:
    record = read_partition(finished / "partition.json")
    job = config.load(finished / "config.toml")
    data = np.load(job.data.name)
    rows = [row for device in record.devices for row in device.rows]
    assert len(rows) == len(set(rows)) and len(record.devices) == job.fleet.devices
    for device in record.devices:
        counts = np.bincount(data["label"][list(device.rows)], minlength=len(record.names))
        assert device.counts == tuple(counts) and device.flips == 0
    assert (finished / "partition.png").read_bytes().startswith(b"\x89PNG")


def test_a_partition_is_used_again(small: tuple[str, ...], finished: Path, tmp_path: Path) -> None:
    """Whatever the partition was drawn by: the rows are the source's, so that it holds for the file."""
    again = trained(
        small, tmp_path / "again", "data.partition=file", f"data.indices={finished / 'partition.json'}"
    )
    assert (
        read_partition(again / "partition.json").devices
        == read_partition(finished / "partition.json").devices
    )
    first, other = (history.read(run / "history.jsonl")[1] for run in (finished, again))
    assert [record.loss for record in first] == [record.loss for record in other]


def test_changed_data_is_refused_and_nothing_is_touched(
    small: tuple[str, ...], cli: Cli, tmp_path: Path
) -> None:
    moved = tmp_path / "moved.npz"
    shutil.copyfile(of_data(small), moved)
    run = trained((*small, f"data.name={moved}"), tmp_path / "run")
    resume(run)
    data = dict(np.load(moved))
    np.savez(moved, **{name: values[::-1] for name, values in data.items()})
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert_refused(cli("train", "--resume", run), r"the data of .* has changed since the run began: device 0")
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    np.savez(moved, **data)
    (run / "partition.json").write_text("{")
    with pytest.raises(RunError, match=r"partition.json is damaged"):
        resume(run)
    (run / "partition.json").unlink()  # a run from before it was kept
    resume(run)


@pytest.mark.parametrize(
    "settings",
    [
        ("learn.method=sflam", "quant.scheme=identity"),
        ("learn.method=sfl-v2", "quant.scheme=identity"),
        ("learn.method=sflam", "quant.scheme=identity", "model.labels=device"),
        ("learn.method=sl", "quant.scheme=identity"),
        ("learn.method=sflam-mixed", "quant.scheme=identity"),
        ("learn.method=fedlora",),
        ("learn.method=local",),
    ],
)
def test_losses_and_samples_of_devices(
    small: tuple[str, ...], tmp_path: Path, settings: tuple[str, ...]
) -> None:
    """With a rate that moves nothing, a device's loss over an epoch is the model's on its samples."""
    chosen = (
        *small,
        *settings,
        "learn.local_steps=0",
        "learn.local_epochs=1",
        "learn.lr=1e-12",
        "learn.rounds=1",
        "fleet.selected=0",
    )
    run = start(config.load(None, chosen), tmp_path / "run")
    expected = []
    assembly = run.assembly
    for part in assembly.parts:
        score = evaluate(assembly.model, examples_of(assembly.splits.train.take(part), assembly.backbone))
        expected.append(score.loss)
    [record] = list(run.rounds())
    assert record.device_samples == tuple(map(len, assembly.parts))
    assert record.device_loss == pytest.approx(expected, rel=1e-4)
    assert np.average(record.device_loss, weights=record.device_samples) == pytest.approx(record.loss)
    _, [read] = history.read(run.folder.history)
    assert read == record
    result = run.finish()
    assert result.worst_device_loss == max(record.device_loss)
    assert result.worst_device_accuracy == min(result.device_accuracy)
    assert result.worst_device_perplexity is None


def test_a_device_without_a_share_has_no_loss(small: tuple[str, ...], tmp_path: Path) -> None:
    """Of global batches of few rows, some devices get none."""
    chosen = ("learn.method=sflam-mixed", "data.sampling=global", "learn.batch=1", "learn.local_steps=1")
    run = trained(small, tmp_path / "run", *chosen, "learn.rounds=6")
    _, records = history.read(run / "history.jsonl")
    without = [
        (rows, loss)
        for record in records
        for rows, loss in zip(record.device_samples, record.device_loss, strict=True)
    ]
    assert all((loss is None) == (rows == 0) for rows, loss in without) and (0, None) in without
    assert all(sum(record.device_samples) == record.samples for record in records)


def test_pooled_samples_are_of_no_device(small: tuple[str, ...], tmp_path: Path) -> None:
    run = trained(small, tmp_path / "run", "learn.method=central", "learn.rounds=1")
    _, [record] = history.read(run / "history.jsonl")
    assert record.device_samples == record.device_loss == () and record.samples > 0
    assert json.loads((run / "result.json").read_text())["worst_device_loss"] is None


def test_a_history_from_before_is_read(finished: Path, tmp_path: Path) -> None:
    lines = (finished / "history.jsonl").read_text().splitlines()
    older = [json.loads(line) for line in lines]
    for line in older[1:]:
        del line["device_samples"], line["device_loss"]
    path = tmp_path / "history.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in older))
    assert all(record.device_loss == () for record in history.read(path)[1])


def test_flipped_labels_are_seen_in_the_loss_of_their_device_alone(
    small: tuple[str, ...], tmp_path: Path
) -> None:
    plain = trained(small, tmp_path / "plain", "learn.rounds=1", "learn.lr=1e-12")
    wrong = trained(
        small,
        tmp_path / "wrong",
        "learn.rounds=1",
        "learn.lr=1e-12",
        "data.flipped=1",
        "data.flipped_devices=[1]",
    )
    [before], [after] = (history.read(run / "history.jsonl")[1] for run in (plain, wrong))
    same = [a == b for a, b in zip(before.device_loss, after.device_loss, strict=True)]
    assert same == [device != 1 for device in before.participants]
    assert before.test_loss == after.test_loss and before.accuracy == after.accuracy
    flips = [device.flips for device in read_partition(wrong / "partition.json").devices]
    assert flips[1] == len(read_partition(wrong / "partition.json").devices[1].rows) == sum(flips)
