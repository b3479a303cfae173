"""``learn.keep``: the best round's model is what a run writes, also after a crash."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import sflam
from sflam import config
from sflam.data.dataset import Dataset
from sflam.errors import RunError
from sflam.learn import checkpoint
from sflam.learn.best import best_of, stopped
from sflam.learn.evaluate import Score
from sflam.model.adapters import State
from sflam.model.families import CAUSAL, IMAGE
from sflam.records.history import RoundRecord
from sflam.run.assemble import Assembly

SCORES = [Score(1.0, 0.5), Score(0.9, 0.75), Score(0.9, 0.75), Score(0.2, 0.25)]
"""The second round is the best, the third its equal, the last has the lowest loss."""
TESTED = Score(0.7, 0.625)


@pytest.fixture
def job(small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> sflam.Job:
    """Four rounds with the scores above, whatever is trained; each round once, in whatever process state.

    The test part has scores that would choose another round.
    """
    scores = iter(SCORES)

    def score(of: Assembly, state: State, dataset: Dataset) -> Score:
        return next(scores) if dataset is of._of_rounds else TESTED

    monkeypatch.setattr(Assembly, "_score", score)
    return config.load(None, [*small, "learn.rounds=4", "learn.keep=best", "learn.canonical=true"])


def finished(run: Any) -> tuple[dict[int, Any], sflam.Result]:
    """Run what is left; return the state after each round, and the result."""
    states = {record.round: run.state for record in run.rounds()}
    return states, run.finish()


def expect_second_round(result: sflam.Result, states: dict[int, Any]) -> None:
    written = load_file(Path(result.run_dir) / "adapter" / "adapter_model.safetensors")
    assert result.kept_round == 2 and result.rounds == 4
    assert (result.validation_accuracy, result.validation_loss) == (0.75, 0.9)
    assert (result.accuracy, result.loss) == (TESTED.accuracy, TESTED.loss)
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in written.items())
    assert any(not torch.equal(tensor, states[3][name]) for name, tensor in written.items())
    card = (Path(result.run_dir) / "adapter" / "README.md").read_text()
    assert "62.5 %" in card and "75.0 %" not in card


def test_the_best_round_is_written(job: sflam.Job, tmp_path: Path) -> None:
    states, result = finished(sflam.start(job, tmp_path / "run"))
    expect_second_round(result, states)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["kept_round"] == 2


@pytest.mark.parametrize("done", [1, 2, 3, 4])
def test_it_is_kept_across_resume(job: sflam.Job, tmp_path: Path, done: int) -> None:
    run = sflam.start(job, tmp_path / "run")
    rounds, states = run.rounds(), {}
    for _ in range(done):
        record = next(rounds)
        states[record.round] = run.state
    rounds.close()
    more, result = finished(sflam.resume(tmp_path / "run"))
    expect_second_round(result, states | more)


def test_the_last_round_is_written_by_default(job: sflam.Job, tmp_path: Path) -> None:
    last = config.load(None, [f"learn.rounds={len(SCORES)}"])
    assert last.learn.keep == "last"
    plain = replace(job, learn=replace(job.learn, keep="last"), data=replace(job.data, validation=0.1))
    states, result = finished(sflam.start(plain, tmp_path / "run"))
    assert result.kept_round == 4 and (result.validation_accuracy, result.accuracy) == (0.25, 0.625)
    written = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert all(torch.equal(tensor, states[3][name]) for name, tensor in written.items())


def test_a_checkpoint_without_its_best_is_refused(job: sflam.Job, tmp_path: Path) -> None:
    run = sflam.start(job, tmp_path / "run")
    next(run.rounds())
    saved = checkpoint.load(run.folder.checkpoints)
    assert saved is not None
    del saved["best"]
    checkpoint.save(run.folder.checkpoints, saved)
    with pytest.raises(RunError, match="is not of this run"):
        sflam.resume(tmp_path / "run")


def test_language_models_are_compared_by_loss_and_classifiers_by_accuracy() -> None:
    records = [
        RoundRecord(round=number, loss=0.0, validation_loss=score.loss, validation_accuracy=score.accuracy)
        for number, score in enumerate(SCORES)
    ]
    for task, wanted in ((CAUSAL, 3), (IMAGE, 1)):
        kept = None
        for record in records:
            kept = best_of(kept, record, {}, task)
        assert kept is not None and kept.record.round == wanted
    better = RoundRecord(round=4, loss=0.0, validation_loss=0.5, validation_accuracy=0.75)
    assert best_of(best_of(None, records[1], {}, IMAGE), better, {}, IMAGE).record.round == 4


@pytest.mark.parametrize("task", [CAUSAL, IMAGE])
def test_rounds_are_compared_by_the_metric_that_is_set(task: str) -> None:
    """The largest metric wins over the largest accuracy and the smallest loss; of equals the smaller loss."""
    values = [(0.9, 0.5, 0.3), (0.5, 0.4, 0.8), (0.7, 0.3, 0.8), (0.6, 0.2, 0.1)]
    records = [
        RoundRecord(round=number, loss=0.0, validation_accuracy=accuracy, validation_loss=loss, metric=metric)
        for number, (accuracy, loss, metric) in enumerate(values)
    ]
    kept = None
    for record in records:
        kept = best_of(kept, record, {}, task)
    assert kept is not None and kept.record.round == 2
    assert stopped(records[:2], 1, task) is False and stopped(records, 1, task) is True


def test_a_run_keeps_its_best_round_by_the_metric(small: tuple[str, ...], tmp_path: Path) -> None:
    asked = ("learn.metric=macro-f1", "learn.keep=best", "learn.rounds=4", "learn.lr=0.05")
    run = sflam.start(config.load(None, [*small, *asked]), tmp_path / "run")
    records = list(run.rounds())
    metrics = [record.metric for record in records]
    assert None not in metrics and len(set(metrics)) > 1
    top = [record for record in records if record.metric == max(metrics)]
    assert run.finish().kept_round == 1 + min(top, key=lambda record: record.validation_loss).round
