"""Runs in MLflow and Weights & Biases: with the libraries themselves where they are installed, into a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import sflam
from sflam.report.tensorboard import scalars
from sflam.run.trackers import numbers_of, settings_of


class Kept(sflam.Callback):
    """Keeps the records of a run."""

    def __init__(self) -> None:
        self.records: list[sflam.RoundRecord] = []

    def ended_round(self, record: sflam.RoundRecord) -> None:
        self.records.append(record)


class Stop(sflam.Callback):
    """Ends a run after its first round."""

    def ended_round(self, record: sflam.RoundRecord) -> None:
        raise KeyboardInterrupt


def job(small: tuple[str, ...], *more: str) -> sflam.Job:
    return sflam.load(None, [*small, "learn.rounds=2", *more])


@pytest.mark.parametrize(("callback", "extra"), [("MlflowCallback", "mlflow"), ("WandbCallback", "wandb")])
def test_a_library_that_is_missing_is_named(
    callback: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, extra, None)
    with pytest.raises(sflam.SflamError, match=rf"{extra} is not installed; pip install 'sflam\[{extra}\]'"):
        getattr(sflam, callback)()


def test_every_setting_is_there_by_its_key() -> None:
    found = settings_of(sflam.load(None, ["network.profiles={phone=2}"]))
    assert found["learn.rounds"] == sflam.load(None).learn.rounds and found["network.profiles.phone"] == 2
    assert found["fleet.cuts"] == () and not any(
        isinstance(value, dict) and value for value in found.values()
    )


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    found = pytest.importorskip("mlflow", reason="MLflow is an extra")
    yield found
    while found.active_run():
        found.end_run()


def test_a_run_is_in_mlflow(small: tuple[str, ...], tmp_path: Path, mlflow: Any) -> None:
    uri = (tmp_path / "mlruns").as_uri()
    tracker = sflam.MlflowCallback("study", tracking_uri=uri)
    result = sflam.train(job(small), tmp_path / "run", callbacks=[tracker])
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("study").experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == "run"
    assert run.data.params["learn.rounds"] == "2"
    assert run.data.metrics["result/accuracy"] == pytest.approx(result.accuracy)
    kept = client.get_metric_history(run.info.run_id, "loss/train")
    assert [one.step for one in kept] == [1, 2]
    assert [one.path for one in client.list_artifacts(run.info.run_id)] == ["adapter"]
    kept = {one.path for one in client.list_artifacts(run.info.run_id, "adapter")}
    assert {"adapter/README.md", "adapter/adapter_config.json"} <= kept


def test_a_run_that_was_stopped_is_killed_there(small: tuple[str, ...], tmp_path: Path, mlflow: Any) -> None:
    uri = (tmp_path / "mlruns").as_uri()
    tracker = sflam.MlflowCallback(tracking_uri=uri)
    with pytest.raises(KeyboardInterrupt):
        sflam.train(job(small), tmp_path / "run", callbacks=[tracker, Stop()])
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("sflam").experiment_id])
    assert run.info.status == "KILLED"


def test_a_run_is_in_wandb(small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="W&B is an extra")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracker = sflam.WandbCallback("study", mode="offline", dir=str(tmp_path))
    logged: list[tuple[int, dict[str, float]]] = []
    summary: dict[str, float] = {}
    init = wandb.init

    def begun(**options: Any) -> Any:
        run = init(**options)
        log, finish = run.log, run.finish
        run.log = lambda values, step: (logged.append((step, values)), log(values, step=step))
        run.finish = lambda: (summary.update(dict(run.summary)), finish())
        return run

    monkeypatch.setattr(wandb, "init", begun)
    kept = Kept()
    result = sflam.train(job(small), tmp_path / "run", callbacks=[tracker, kept])
    assert logged == [(record.round + 1, scalars(record)) for record in kept.records]
    assert tracker._run.config["learn.rounds"] == 2
    assert summary["result/accuracy"] == pytest.approx(numbers_of(result)["result/accuracy"])
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
