"""``verify``: it passes on what is equal and fails on what is not."""

from __future__ import annotations

import pytest
import torch

from sflam.errors import ModelError
from sflam.model import segment as splitting
from sflam.model.verify import tolerance, verify
from tests.tiny import DEPTH, EVERY_KIND, KINDS, tiny

CUTS = range(DEPTH + 1)


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_split_model_is_the_whole_model(kind, dtype):
    backbone = tiny(kind, dtype=dtype)
    found = list(verify(backbone, CUTS))
    assert [item.cut for item in found] == list(CUTS)
    assert max(item.largest for item in found) <= tolerance(backbone)


@pytest.mark.parametrize("kind", KINDS)
def test_one_perturbed_boundary_value_is_seen_at_every_cut(kind):
    backbone = tiny(kind)
    for item in verify(backbone, CUTS, perturb=1e-3):
        assert item.largest >= item.activations > tolerance(backbone)
        # After the last block a classifier of the last token no longer looks at the first, perturbed one.
        assert item.cut == DEPTH or (item.loss > 0 and item.gradients > tolerance(backbone))


def test_a_wrong_mask_is_seen(monkeypatch):
    """Forgetting the padding, or the causality, changes gradients on valid tokens."""
    monkeypatch.setattr(splitting.Segment, "surroundings", lambda *_: lambda index: {"attention_mask": None})
    assert max(item.largest for item in verify(tiny("bert"), CUTS)) > 1e-3


def test_a_wrong_scaling_of_the_adapters_is_seen(monkeypatch):
    built = splitting.StackedLoRA.__init__
    monkeypatch.setattr(
        splitting.StackedLoRA,
        "__init__",
        lambda self, base, a, b, s, *rest: built(self, base, a, b, s * 1.001, *rest),
    )
    assert max(item.largest for item in verify(tiny("vit"), CUTS)) > 1e-6


def test_a_loss_shifted_twice_is_seen(monkeypatch):
    from sflam.model import verify as verifying

    honest = verifying.group_losses
    monkeypatch.setattr(verifying, "group_losses", lambda task, x, y, n: honest(task, x[:, :-1], y[:, 1:], n))
    assert max(item.loss for item in verify(tiny("gpt2-lm"), CUTS)) > 1e-3


def test_a_cut_that_does_not_exist_is_refused():
    with pytest.raises(ModelError, match=r"cut 9 is out of range: model 'vit' has 3 blocks"):
        list(verify(tiny("vit"), [9]))
