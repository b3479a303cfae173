"""What is chosen is chosen on validation samples; the test part is looked at once, when the choice is made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sflam
from sflam import config
from sflam.learn import best
from sflam.learn.evaluate import Score
from sflam.model.families import CAUSAL, IMAGE
from sflam.records import history
from sflam.records.history import RoundRecord
from sflam.run import assemble as assembly
from sflam.run.assemble import Assembly
from tests.conftest import Cli, sets
from tests.records.test_history import record as full_record

PICKY = ("learn.canonical=true", "data.validation=0.2")


class Looked:
    """Scores by turns, and which part of the data each was of."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, validation: list[float]) -> None:
        self.parts: list[str] = []
        self.scores: Iterator[float] = iter(validation)
        score = Assembly._score

        def seen(of: Assembly, state: Any, examples: Any) -> Score:
            self.parts.append("test" if examples.dataset is of.splits.test else "validation")
            return score(of, state, examples)

        def scored(*_: Any, **options: Any) -> Score:
            return Score(1.0, next(self.scores) if self.parts[-1] == "validation" else 0.125)

        monkeypatch.setattr(Assembly, "_score", seen)
        monkeypatch.setattr(assembly, "evaluate", scored)


def job_of(small: tuple[str, ...], *keys: str) -> sflam.Job:
    return config.load(None, [*small, *PICKY, *keys])


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_test_part_is_looked_at_once_and_last(
    small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str
) -> None:
    looked = Looked(monkeypatch, [0.5, 0.75, 0.25])
    result = sflam.train(job_of(small, "learn.rounds=3", f"learn.keep={keep}"), tmp_path / "run")
    assert looked.parts == ["validation"] * 3 + ["test"]
    kept = {"last": (3, 0.25), "best": (2, 0.75)}[keep]
    assert (result.kept_round, result.validation_accuracy, result.accuracy) == (*kept, 0.125)
    lines = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()[1:]]
    assert [line["validation_accuracy"] for line in lines] == [0.5, 0.75, 0.25]
    assert all(line["accuracy"] is line["test_loss"] is None for line in lines)
    card = (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert "| Test accuracy | 12.5 % |" in card


def test_without_one_rounds_are_scored_on_the_test_part_as_before(
    small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = Looked(monkeypatch, [])
    result = sflam.train(config.load(None, [*small, "learn.rounds=2"]), tmp_path / "run")
    assert looked.parts == ["test"] * 2
    assert result.validation_accuracy is result.validation_loss is None
    lines = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()[1:]]
    assert all(line["accuracy"] == 0.125 and "validation_accuracy" not in line for line in lines)


def test_what_is_chosen_does_not_depend_on_the_test_part(
    small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels of all test samples are turned round: history, kept round and adapters stay; the result moves."""
    job = job_of(small, "learn.rounds=3", "learn.keep=best", "learn.lr=0.02")
    found, load = {}, assembly.load_data

    def turned(*arguments: Any) -> Any:
        splits = load(*arguments)
        labels = (splits.test.labels + 5) % len(splits.test.classes)
        return replace(splits, test=replace(splits.test, labels=labels))

    for name in ("as they are", "turned round"):
        if name == "turned round":
            monkeypatch.setattr(assembly, "load_data", turned)
        result = sflam.train(job, tmp_path / name)
        rounds = history.read(tmp_path / name / "history.jsonl")[1]
        weights = (tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes()
        plain = [replace(one, seconds=0.0, evaluating_s=0.0) for one in rounds]
        found[name] = (plain, result.kept_round, result.validation_loss, weights), result.loss
    assert found["as they are"][0] == found["turned round"][0]
    assert found["as they are"][1] != found["turned round"][1]


@pytest.mark.parametrize(
    ("scores", "patience", "rounds"),
    [
        ([0.5, 0.6, 0.6, 0.6, 0.9], 2, 4),  # an equal is no improvement
        ([0.5, 0.6, 0.5, 0.7, 0.1, 0.2], 2, 6),
        ([0.5, 0.4], 1, 2),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], 1, 7),
    ],
)
def test_a_run_ends_when_no_better_score_comes(
    small: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scores: list[float],
    patience: int,
    rounds: int,
) -> None:
    looked = Looked(monkeypatch, scores)
    job = job_of(small, "learn.rounds=7", f"learn.stop_after={patience}", "learn.keep=best")
    result = sflam.train(job, tmp_path / "run")
    assert (result.rounds, result.stopped_round) == (rounds, rounds if rounds < 7 else None)
    assert looked.parts == ["validation"] * rounds + ["test"]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["stopped_round"] == result.stopped_round
    # Resumed, it is finished: no round more, the test part scored for the result that is written again.
    again = sflam.resume(tmp_path / "run")
    assert list(again.rounds()) == [] and len(again.records) == rounds
    assert again.finish() == result
    assert looked.parts == [*["validation"] * rounds, "test", "test"]


def test_killed_before_its_end_it_stops_at_the_same_round(
    small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Looked(monkeypatch, [0.5, 0.6, 0.4, 0.3])
    run = sflam.start(job_of(small, "learn.rounds=9", "learn.stop_after=2"), tmp_path / "run")
    rounds = run.rounds()
    for _ in range(3):
        next(rounds)
    rounds.close()
    resumed = sflam.resume(tmp_path / "run")
    assert [record.round for record in resumed.rounds()] == [3]
    assert resumed.finish().stopped_round == 4


def test_evaluations_count_not_rounds(
    small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Looked(monkeypatch, [0.5, 0.4, 0.3])
    job = job_of(small, "learn.rounds=20", "learn.evaluate_every=3", "learn.stop_after=2")
    assert sflam.train(job, tmp_path / "run").stopped_round == 9


def test_language_models_stop_by_loss_and_classifiers_by_accuracy() -> None:
    def rounds(*scores: tuple[float, float]) -> list[RoundRecord]:
        return [
            RoundRecord(round=n, loss=0.0, validation_loss=loss, validation_accuracy=accuracy)
            for n, (loss, accuracy) in enumerate(scores)
        ]

    falling = rounds((3.0, 0.5), (2.0, 0.5), (1.0, 0.4))
    assert best.stopped(falling, 1, IMAGE) and not best.stopped(falling, 1, CAUSAL)
    assert not best.stopped(falling, 0, IMAGE) and not best.stopped([], 1, IMAGE)
    on_test = [RoundRecord(round=n, loss=0.0, test_loss=1.0, accuracy=0.5) for n in range(9)]
    assert not best.stopped(on_test, 1, IMAGE), "the test part stops no run"


def test_a_record_with_a_validation_score_survives_json() -> None:
    one = replace(
        full_record(3), test_loss=None, accuracy=None, validation_loss=0.5, validation_accuracy=0.25
    )
    values = history.record_to_dict(one)
    assert history.record_from_dict(json.loads(json.dumps(values))) == one
    assert (one.part, one.evaluated_loss, one.evaluated_accuracy) == ("validation", 0.5, 0.25)
    assert "validation_loss" not in history.record_to_dict(full_record(3))


def test_the_command_line_names_the_parts(cli: Cli, small: tuple[str, ...], tmp_path: Path) -> None:
    keys = sets(*small, "learn.rounds=12", "learn.keep=best", "learn.stop_after=1", "learn.lr=1e-30")
    done = cli("train", *keys, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    notes = [line for line in done.err if line.startswith("note: ")]
    assert any("training samples are held out for validation: a share of 0.1" in line for line in notes)
    shown = " ".join(done.out)
    assert "val. loss" in shown and "val. acc." in shown and "test accuracy" in shown
    assert any(line.startswith("stopped after round 2 of 12: 1 evaluations without") for line in done.err)
    assert any("validation accuracy" in line and "test accuracy" in line for line in done.err)
    assert any(line.startswith("round 1/12: ") and "validation accuracy" in line for line in done.err)
    page = cli("report", tmp_path / "run", "--out", tmp_path / "page.html")
    assert page.code == 0
    text = (tmp_path / "page.html").read_text()
    assert "validation accuracy (%)" in text and "Validation accuracy on each class" in text
