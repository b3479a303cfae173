"""``learn.evaluate_samples``: rounds are scored on a sample, the kept model on all."""

from __future__ import annotations

from pathlib import Path

import pytest

import sflam
from sflam import config
from sflam.errors import ConfigError
from sflam.learn.evaluate import Score, evaluate
from sflam.records import history
from sflam.run import assemble as assembly
from sflam.run import start

SAMPLES = 6
EACH = "learn.evaluate_every=1"


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The rows in the source of every set of samples that is scored."""
    seen: list[tuple[int, ...]] = []

    def counted(model: object, examples: object, **options: object) -> Score:
        seen.append(tuple(examples.dataset.origin.rows.tolist()))  # type: ignore[attr-defined]
        return evaluate(model, examples, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(assembly, "evaluate", counted)
    return seen


def test_rounds_are_scored_on_a_sample_and_the_end_on_all(
    small: tuple[str, ...], tmp_path: Path, sizes: list[tuple[int, ...]]
) -> None:
    job = config.load(None, [*small, EACH, "learn.rounds=3", f"learn.evaluate_samples={SAMPLES}"])
    result = sflam.train(job, tmp_path / "run")
    *rounds, last = sizes
    assert len(rounds) == 3 and len(set(rounds)) == 1 and len(rounds[0]) == SAMPLES, (
        "one sample for all rounds"
    )
    assert set(rounds[0]) < set(last)
    records = history.read(tmp_path / "run" / "history.jsonl")[1]
    for record in records:
        assert record.accuracy is not None
        assert abs(record.accuracy * SAMPLES - round(record.accuracy * SAMPLES)) < 1e-9
        assert 0 < record.evaluating_s < record.seconds
    assert abs(result.accuracy * len(last) - round(result.accuracy * len(last))) < 1e-9
    assert 0 < result.evaluating_share < 1
    resumed = start.resume(tmp_path / "run")
    again = resumed.assembly.test(resumed.state)
    assert (again.accuracy, again.loss) == (result.accuracy, result.loss)


def test_more_samples_than_there_are_is_all_of_them(
    small: tuple[str, ...], tmp_path: Path, sizes: list[tuple[int, ...]]
) -> None:
    job = config.load(None, [*small, EACH, "learn.rounds=2", "learn.evaluate_samples=100000"])
    result = sflam.train(job, tmp_path / "run")
    assert len(sizes) == 2 and len(set(sizes)) == 1, "the last round's score is that of the end"
    assert history.read(tmp_path / "run" / "history.jsonl")[1][-1].accuracy == result.accuracy


def test_with_a_validation_part_both_parts_are_scored_whole_at_the_end(
    small: tuple[str, ...], tmp_path: Path, sizes: list[tuple[int, ...]]
) -> None:
    keys = (
        EACH,
        "learn.rounds=2",
        "data.validation=0.2",
        "learn.keep=best",
        f"learn.evaluate_samples={SAMPLES}",
    )
    result = sflam.train(config.load(None, [*small, *keys]), tmp_path / "run")
    *rounds, validation, test = map(len, sizes)
    assert rounds == [SAMPLES] * 2 and validation > SAMPLES and test > SAMPLES
    assert result.validation_accuracy is not None
    whole = result.validation_accuracy * validation
    assert abs(whole - round(whole)) < 1e-9


def test_fewer_than_none_is_one_clear_error(small: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"learn\.evaluate_samples is -1; it must be 0 or more"):
        config.load(None, [*small, "learn.evaluate_samples=-1"])
