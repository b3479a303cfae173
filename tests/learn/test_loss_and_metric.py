"""``learn.loss`` reaches every method, wherever the labels are; ``learn.metric`` reaches history and result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sklearn.metrics import f1_score
from torch import Tensor

import sflam
from sflam.learn.settings import LearnSettings
from sflam.model.losses import cross_entropy, register
from sflam.records import history
from sflam.run.predict import predict


@pytest.mark.parametrize("method", ["sflam", "sfl-v2", "sl", "fedlora", "central"])
def test_a_loss_scaled_by_two_scales_the_training_loss(
    small: tuple[str, ...], tmp_path: Path, forget: Callable[[], None], method: str
) -> None:
    def doubled(logits: Tensor, targets: Tensor, settings: LearnSettings) -> Tensor:
        return 2 * cross_entropy(logits, targets, settings)

    register("doubled", doubled)
    # One round of one step: the loss is that of the same weights.
    common = (*small, f"learn.method={method}", "learn.rounds=1", "learn.local_steps=1", "fleet.devices=1")
    plain = sflam.start(sflam.load(None, common), tmp_path / "plain")
    own = sflam.start(sflam.load(None, [*common, "learn.loss=doubled"]), tmp_path / "own")
    first, second = next(plain.rounds()), next(own.rounds())
    assert second.loss == pytest.approx(2 * first.loss, rel=1e-6)


def test_labels_at_home_and_on_the_server_give_the_same_loss(small: tuple[str, ...], tmp_path: Path) -> None:
    found = []
    for labels in ("server", "device"):
        settings = (
            *small,
            "learn.loss=focal",
            "quant.scheme=identity",
            f"model.labels={labels}",
            "learn.rounds=1",
        )
        found.append(next(sflam.start(sflam.load(None, settings), tmp_path / labels).rounds()).loss)
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_the_metric_is_that_of_the_kept_models_predictions(small: tuple[str, ...], tmp_path: Path) -> None:
    settings = [*small, "learn.metric=macro-f1", "learn.evaluate_every=2", "learn.rounds=3"]
    result = sflam.train(sflam.load(None, settings), tmp_path / "run")
    _, records = history.read(tmp_path / "run/history.jsonl")
    assert [record.metric is None for record in records] == [True, False, False]
    assert result.metric == records[-1].metric
    found = predict(tmp_path / "run")
    assert found.labels is not None
    assert result.metric == pytest.approx(f1_score(found.labels, found.predicted, average="macro"))


def test_without_a_metric_nothing_new_is_written(finished: Path) -> None:
    assert '"metric"' not in (finished / "history.jsonl").read_text().partition("\n")[2]
