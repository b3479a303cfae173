"""The measured constants of a bound are those of the whole Hessian and of every gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sflam.stability.curvature import least_curvature, sample_losses, steepest
from tests.learn.builders import adapted


def of(kind):
    _, model, examples = adapted(kind)
    model.eval()
    first = ("layers.0.", "layer.0.")
    trained = [
        p for name, p in model.named_parameters() if p.requires_grad and any(block in name for block in first)
    ]
    return model, examples, np.arange(9), trained


@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_lanczos_finds_the_least_eigenvalue_of_the_whole_hessian(kind):
    model, examples, samples, trained = of(kind)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        loss = sample_losses(model, examples, samples).mean()
        first = torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained, create_graph=True)])
        rows = [
            torch.cat([g.flatten(1) for g in grads], dim=1)
            for chosen in torch.eye(len(first), dtype=first.dtype).split(64)
            for grads in [
                torch.autograd.grad(first, trained, chosen, retain_graph=True, is_grads_batched=True)
            ]
        ]
    exact = float(torch.linalg.eigvalsh(torch.cat(rows))[0])
    found = least_curvature(model, examples, samples, trained, tolerance=1e-6, steps=200)
    assert found == pytest.approx(exact, rel=1e-3, abs=1e-9)


def test_the_steepest_sample_is_found():
    model, examples, samples, trained = of("vit")
    norms = []
    for sample in samples:
        loss = sample_losses(model, examples, np.array([sample])).sum()
        norms.append(float(torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained)]).norm()))
    assert steepest(model, examples, samples, trained) == max(norms) > min(norms)
