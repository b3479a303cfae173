"""Losses equal hand arithmetic, their parameters switch them off, padding never reaches them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sflam.errors import ConfigError
from sflam.learn.settings import LearnSettings
from sflam.model.families import CAUSAL, IMAGE
from sflam.model.loss import IGNORED, group_losses
from sflam.model.losses import LOSSES, register

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0], [1.0, 3.0, 1.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 2, 0])


def probability(row: int) -> float:
    scores = [math.exp(value) for value in LOGITS[row].tolist()]
    return scores[LABELS[row]] / sum(scores)


def test_focal_by_hand() -> None:
    wanted = [-((1 - probability(row)) ** 1.5) * math.log(probability(row)) for row in range(3)]
    found = LOSSES["focal"](LOGITS, LABELS, LearnSettings(loss="focal", focal_gamma=1.5))
    assert found.tolist() == pytest.approx(wanted)


def test_label_smoothing_by_hand() -> None:
    log_p = LOGITS.log_softmax(-1)
    wanted = [-(0.7 * log_p[row, LABELS[row]] + 0.3 / 3 * log_p[row].sum()) for row in range(3)]
    found = LOSSES["label-smoothing"](LOGITS, LABELS, LearnSettings(smoothing=0.3))
    assert found.tolist() == pytest.approx([float(value) for value in wanted])


OFF = [{"loss": "focal", "focal_gamma": 0.0}, {"loss": "label-smoothing", "smoothing": 0.0}]


@pytest.mark.parametrize("settings", OFF)
def test_a_loss_switched_off_is_the_cross_entropy_gradient_and_all(settings: dict[str, object]) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 4, dtype=torch.float64, requires_grad=True), torch.randint(4, (5,))
    learn = LearnSettings(**settings)  # type: ignore[arg-type]
    for found in (
        group_losses(IMAGE, logits, labels, (2, 3), learn),
        group_losses(IMAGE, logits, labels, (2, 3)),
    ):
        wanted = torch.stack(
            [F.cross_entropy(logits[:2], labels[:2]), F.cross_entropy(logits[2:], labels[2:])]
        )
        assert torch.allclose(found, wanted, rtol=1e-9)
        (gradient,) = torch.autograd.grad(found.sum(), logits)
        assert torch.allclose(gradient, torch.autograd.grad(wanted.sum(), logits)[0], rtol=1e-9)


def test_focal_is_finite_where_the_model_is_certain() -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    found = LOSSES["focal"](logits, torch.tensor([0, 0]), LearnSettings(focal_gamma=0.5))
    found.sum().backward()
    assert found.isfinite().all() and logits.grad is not None and logits.grad.isfinite().all()


def test_padding_never_reaches_a_loss_of_ones_own(forget: Callable[[], None]) -> None:
    seen: list[Tensor] = []

    def own(logits: Tensor, targets: Tensor, settings: LearnSettings) -> Tensor:
        seen.append(targets)
        return logits.gather(1, targets[:, None])[:, 0] * settings.smoothing

    register("own", own)
    logits = torch.arange(24.0).view(2, 4, 3)
    labels = torch.tensor([[0, 1, 2, 0], [0, 2, IGNORED, IGNORED]])
    found = group_losses(CAUSAL, logits, labels, (1, 1), LearnSettings(loss="own", smoothing=0.5))
    assert seen[0].tolist() == [1, 2, 0, 2]
    assert found.tolist() == pytest.approx([(1 + 5 + 6) / 3 / 2, 14 / 2])


def test_a_loss_of_another_shape_is_refused(forget: Callable[[], None]) -> None:
    register("mean", lambda logits, targets, settings: F.cross_entropy(logits, targets))
    with pytest.raises(
        ConfigError, match=r"learn.loss = mean gave \[\] for 3 targets; it must give the loss of each"
    ):
        group_losses(IMAGE, LOGITS, LABELS, (3,), LearnSettings(loss="mean"))
